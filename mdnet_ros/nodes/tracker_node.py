"""The tracker as a managed ROS 2 node."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from mdnet_ros.errors import DataError, ImageError, MDNetError
from mdnet_ros.nodes.diagnostics import SILENCE, Reporter, Statistics
from mdnet_ros.nodes.engine import Engine, Processed, free_memory, load_extractor, read_mask
from mdnet_ros.nodes.images import ImageConverter, check
from mdnet_ros.nodes.inputs import Inputs
from mdnet_ros.nodes.mailbox import Mailbox
from mdnet_ros.nodes.messages import camera_model, stamp_nanoseconds
from mdnet_ros.nodes.outputs import Outputs
from mdnet_ros.nodes.parameters import changed_values, declare_settings
from mdnet_ros.nodes.settings import SETTINGS

#: Seconds a stopping worker may take for the frame it has in hand.
_STOP_SECONDS = 1.5


@dataclass(frozen=True)
class _Arrival:
    message: Any
    received: float


class TrackerNode(LifecycleNode):
    """Camera topics in; keypoints, correspondences, tracks and an overlay out.

    configure loads the network and makes the publishers, activate subscribes, deactivate
    unsubscribes, cleanup lets the network go. Callbacks only put images into a mailbox; one
    worker thread takes the newest, so outputs come in the order of the images.

    Raises:
        SettingError: if a parameter has a wrong value.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('tracker', **kwargs)
        self.settings = declare_settings(self)
        self.error = ''  # why the last transition failed
        self._statistics = Statistics()
        self._report = Reporter(self.get_logger().warning, note=self._statistics.trouble)
        self._converter = ImageConverter()
        self._engine: Engine | None = None
        self._outputs: Outputs | None = None
        self._inputs: Inputs | None = None
        self._mailbox: Mailbox[_Arrival] = Mailbox()
        self._worker: threading.Thread | None = None
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10)
        )
        self.create_timer(
            self.settings.diagnostics_period,
            self._publish_diagnostics,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.get_logger().info(
            f'images are converted by {self._converter.backend}'
            + (f' (cv_bridge: {self._converter.reason})' if self._converter.reason else '')
        )

    # Lifecycle. rclpy swallows exceptions of these callbacks, so each tells its own.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and make the publishers."""
        try:
            extractor = load_extractor(self.settings)
            self._engine = Engine(self.settings, extractor)
            self._outputs = Outputs(self)
        except (MDNetError, ValueError, RuntimeError) as error:
            self._let_go()
            return self._failed('configure', error)
        self.get_logger().info(
            f'{extractor.name} {extractor.info.sha256[:12]} on {extractor.device}, '
            f'{extractor.precision}'
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        result = super().on_activate(state)
        try:
            self._mailbox = Mailbox()
            self._worker = threading.Thread(target=self._work, name='tracker', daemon=True)
            self._worker.start()
            self._inputs = Inputs(
                self, self.settings, self._on_image, self._on_camera_info,
                self._statistics.lost, lambda line: self._report('subscription', line),
            )
        except Exception as error:
            self._stop()
            return self._failed('activate', error)
        self.get_logger().info(f"waiting for images on '{self._inputs.topic}'")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and publish what is in hand."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the network and the publishers go."""
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever is going on."""
        self._stop()
        self._let_go()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        return self.on_shutdown(state)

    def close(self) -> None:
        """End the work in hand; for the process's end."""
        self._stop()

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self.error = ' '.join(str(error).split())
        self.get_logger().error(f'cannot {transition}: {self.error}')
        return TransitionCallbackReturn.FAILURE

    def _stop(self) -> None:
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._mailbox.close() is not None:
            self._statistics.drop('deactivated')
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(_STOP_SECONDS)
            self._worker = None

    def _let_go(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._engine = None
        free_memory()

    # Frames.

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrival = _Arrival(message, self._statistics.arrival())
        try:
            check(message)
        except ImageError as error:  # before it could take the place of a good one
            self._dropped('bad image', str(error))
            return
        if self._mailbox.put(arrival) is not None:
            self._statistics.drop('overload')

    def _on_camera_info(self, message: CameraInfo) -> None:
        engine = self._engine
        if engine is None:
            return
        try:
            engine.camera = camera_model(message)
        except DataError as error:
            self._report('camera_info', f'{error}; the last good one is kept')

    def _work(self) -> None:
        mailbox = self._mailbox
        while (arrival := mailbox.take()) is not None:
            try:
                self._serve(arrival)
            except ImageError as error:
                self._dropped('bad image', str(error))
            except Exception as error:  # the node lives on whatever a frame brings
                self._dropped('failed', ' '.join(f'{type(error).__name__}: {error}'.split()))

    def _dropped(self, cause: str, detail: str) -> None:
        self._statistics.drop(cause, detail)
        self._report(cause, f'frame dropped, {cause}: {detail}')

    def _serve(self, arrival: _Arrival) -> None:
        engine, outputs, settings = self._engine, self._outputs, self.settings
        if engine is None or outputs is None:
            self._statistics.drop('deactivated')
            return
        message, header = arrival.message, arrival.message.header
        stamp = stamp_nanoseconds(header)
        done = engine.process(self._converter.gray(message), stamp)
        outputs.publish(done, header, settings)
        age = (self.get_clock().now().nanoseconds - stamp) * 1e-9
        self._statistics.done(
            done.frame, arrival.received, age, done.restart.cause if done.restart else ''
        )
        self._tell(done)
        outputs.publish_overlay(done, header, settings, lambda: self._converter.bgr(message))

    def _tell(self, done: Processed) -> None:
        if done.restart is not None:
            self._report(done.restart.cause, f'tracks begin anew: {done.restart}')
        if done.repeated:
            self._statistics.repeated_stamps += 1
            self._report('repeated stamp', 'two images with the same stamp, velocities are unknown')
        if done.calibration_error:
            self._report('calibration', f'no tracks published: {done.calibration_error}')
        if done.fell_back:
            self._report('memory', 'the GPU has no memory left: the network runs on the CPU now')

    # Control.

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        values = changed_values(parameters)
        if not values:
            return SetParametersResult(successful=True)
        try:
            settings = self.settings.changed(values)
            engine = self._engine
            if engine is not None:
                if any(SETTINGS[name].reloads for name in values):
                    extractor = load_extractor(settings)
                    engine.apply(settings, extractor=extractor)
                    self.get_logger().info(
                        f'loaded {extractor.name} {extractor.info.sha256[:12]} '
                        f'on {extractor.device}'
                    )
                else:
                    mask = read_mask(settings.mask) if 'mask' in values else None
                    engine.apply(settings, mask=mask)
            self.settings = settings
        except (MDNetError, ValueError, RuntimeError) as error:
            return SetParametersResult(successful=False, reason=' '.join(str(error).split()))
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        engine = self._engine
        if engine is None:
            response.success, response.message = False, 'not configured'
        else:
            engine.reset()
            response.success, response.message = True, 'all tracks begin anew'
        return response

    def _publish_diagnostics(self) -> None:
        inputs, engine = self._inputs, self._engine
        state = self._state_machine.current_state[1]
        about = {'state': state, 'image backend': self._converter.backend}
        trouble = ''
        if engine is not None:
            extractor = engine.extractor
            about |= {
                'device': str(extractor.device),
                'precision': extractor.precision,
                'weights': extractor.name,
                'weights sha256': extractor.info.sha256,
            }
        if inputs is not None:
            about['image topic'] = inputs.topic
            if self._statistics.silence() > SILENCE:
                trouble = inputs.trouble()
                if trouble:
                    self._report('subscription', trouble)
        status = self._statistics.status(self.settings, about, trouble)
        if inputs is None:
            status.message = state
            status.level = b'\x00'
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: tracker'
        status.hardware_id = about.get('device', '')
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
