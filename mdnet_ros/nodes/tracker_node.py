"""The tracker as a managed ROS 2 node."""

from __future__ import annotations

from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from mdnet_ros.data.camera import camera_of_info
from mdnet_ros.errors import DataError, ImageError, MDNetError
from mdnet_ros.nodes.diagnostics import SILENCE
from mdnet_ros.nodes.events import PublisherEventCallbacks
from mdnet_ros.nodes.images import ImageConverter
from mdnet_ros.nodes.inputs import Inputs
from mdnet_ros.nodes.outputs import Outputs, PairOutputs
from mdnet_ros.nodes.parameters import changed_values, declare_settings
from mdnet_ros.nodes.pipeline import Camera, Pipeline
from mdnet_ros.tracker.engine import Engine, free_memory, load_extractor, read_mask
from mdnet_ros.tracker.settings import SETTINGS

#: Seconds that stopping may take for the images in hand.
_STOP_SECONDS = 1.5


class TrackerNode(LifecycleNode):
    """Camera topics in; keypoints, correspondences, tracks and an overlay out.

    configure loads the network and makes the publishers, activate subscribes, deactivate
    unsubscribes, cleanup lets the network go. In between the images go through a
    :class:`~mdnet_ros.nodes.pipeline.Pipeline`.

    Raises:
        SettingError: if a parameter has a wrong value.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('tracker', **kwargs)
        self.settings = declare_settings(self)
        self.error = ''  # why the last transition failed
        warn = self.get_logger().warning
        self._cameras = [
            Camera(number, name, warn) for number, name in enumerate(self.settings.camera_names)
        ]
        self._converter = ImageConverter()
        self._engine: Engine | None = None
        self._pair: PairOutputs | None = None
        self._pipeline: Pipeline | None = None
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._diagnostics = self.create_publisher(
            DiagnosticArray, '/diagnostics', QoSProfile(depth=10),
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
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
            for camera in self._cameras:
                camera.outputs = Outputs(self, camera.name)
            self._pair = PairOutputs(self) if self.settings.stereo else None
        except Exception as error:
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
            if self._engine is None:
                raise RuntimeError('not configured')
            pipeline = self._pipeline = Pipeline(
                self._engine, self._cameras, self._pair, self._converter,
                lambda: self.get_clock().now().nanoseconds,
            )
            for camera in self._cameras:
                camera.inputs = Inputs(
                    self, self.settings, camera.name, partial(pipeline.add, camera),
                    partial(self._on_camera_info, camera), partial(self._on_mask, camera),
                    camera.statistics.lost, partial(camera.report, 'subscription'),
                )
        except Exception as error:
            self._stop()
            return self._failed('activate', error)
        topics = ', '.join(f"'{c.inputs.topic}'" for c in self._cameras if c.inputs is not None)
        self.get_logger().info(f'waiting for images on {topics}')
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
        for camera in self._cameras:
            if camera.inputs is not None:
                camera.inputs.destroy()
                camera.inputs = None
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop(_STOP_SECONDS)

    def _let_go(self) -> None:
        for camera in self._cameras:
            if camera.outputs is not None:
                camera.outputs.destroy()
                camera.outputs = None
        if self._pair is not None:
            self._pair.destroy()
            self._pair = None
        self._engine = None
        free_memory()

    # What comes beside the images.

    def _on_camera_info(self, camera: Camera, message: CameraInfo) -> None:
        engine = self._engine
        if engine is None:
            return
        try:
            engine.cameras[camera.number].model = camera_of_info(message, self.settings.rectified)
        except DataError as error:
            camera.report('camera_info', f'{error}; the last good one is kept')

    def _on_mask(self, camera: Camera, message: Image) -> None:
        engine = self._engine
        if engine is None:
            return
        try:
            empty = not message.width and not message.height
            mask = None if empty else self._converter.gray(message)
        except ImageError as error:
            camera.report('mask', f'mask: {error}; the last good one is kept')
            return
        engine.cameras[camera.number].mask = mask

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
        array = DiagnosticArray(status=[self._status(camera) for camera in self._cameras])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _status(self, camera: Camera) -> DiagnosticStatus:
        inputs, engine, pipeline = camera.inputs, self._engine, self._pipeline
        stereo = pipeline.stereo if pipeline is not None else None
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
        if stereo is not None and camera.number == 0:
            about |= {
                'stereo matches': str(len(stereo.matches)),
                'stereo inliers': str(int(stereo.matches.inlier.sum())),
                'stereo check': stereo.calibration_error or 'calibrated',
            }
        for outputs in (camera.outputs, self._pair if camera.number == 0 else None):
            if outputs is not None and (wrong := outputs.trouble()):
                camera.report('output', wrong)
        if inputs is not None:
            about['image topic'] = inputs.topic
            silent = [c for c in self._cameras if c.statistics.silence() > SILENCE]
            if camera in silent:
                trouble = inputs.trouble()
                if trouble:
                    camera.report('subscription', trouble)
            elif silent:
                trouble = f"not served: no images of {', '.join(c.name for c in silent)}"
        status = camera.statistics.status(self.settings, about, trouble)
        if inputs is None:
            status.message = state
            status.level = b'\x00'
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: {camera.name or "tracker"}'
        status.hardware_id = about.get('device', '')
        return status
