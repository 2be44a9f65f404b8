"""The tracker as a ROS 2 lifecycle node."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from mdnet_ros.errors import MDNetError
from mdnet_ros.nodes.declare_parameters import changed_values, declare_settings
from mdnet_ros.nodes.diagnostics import SILENCE
from mdnet_ros.nodes.events import PublisherEventCallbacks
from mdnet_ros.nodes.image_conversion import ImageConverter
from mdnet_ros.nodes.inputs import Inputs
from mdnet_ros.nodes.node_camera import NodeCamera
from mdnet_ros.nodes.outputs import Outputs, PairOutputs
from mdnet_ros.nodes.pipeline import Pipeline
from mdnet_ros.tracker.configuration import free_memory, load_configuration
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.settings import SETTINGS, TrackerSettings

#: Seconds to wait, when stopping, for the images that are being processed.
_STOP_SECONDS = 1.5


class TrackerNode(LifecycleNode):
    """Subscribes to cameras; publishes keypoints, correspondences, tracks and an overlay.

    configure loads the network and creates the publishers, activate subscribes, deactivate
    unsubscribes, cleanup unloads the network and ends the publishers. While the node is active,
    a :class:`~mdnet_ros.nodes.pipeline.Pipeline` processes the images.

    Raises:
        SettingError: if a parameter has a wrong value.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('tracker', **kwargs)
        self._unloaded = declare_settings(self)  # settings while there is no engine
        self._engine: Engine | None = None
        self.error = ''  # why the last transition failed
        warn = self.get_logger().warning
        self._cameras = [
            NodeCamera(number, name, warn)
            for number, name in enumerate(self.settings.camera_names)
        ]
        self._inputs: list[Inputs] = []  # one for each camera while active
        self._converter = ImageConverter(self.settings.raw_range)
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

    @property
    def settings(self) -> TrackerSettings:
        """The values of the parameters."""
        engine = self._engine
        return self._unloaded if engine is None else engine.configuration.settings

    # Lifecycle. rclpy swallows exceptions of these callbacks, so each logs its own.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and create the publishers."""
        try:
            configuration = load_configuration(self.settings)
            self._engine = Engine(configuration)
            for camera in self._cameras:
                camera.outputs = Outputs(self, camera.name)
            self._pair = PairOutputs(self) if self.settings.stereo else None
        except Exception as error:
            self._unload()
            return self._failed('configure', error)
        extractor = configuration.extractor
        self.get_logger().info(
            f'{extractor.name} {extractor.info.sha256[:12]} on {extractor.device}, '
            f'{extractor.precision}'
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the pipeline."""
        result = super().on_activate(state)
        try:
            if self._engine is None:
                raise RuntimeError('not configured')
            pipeline = self._pipeline = Pipeline(
                self._engine, self._cameras, self._pair, self._converter, self.get_clock()
            )
            for camera in self._cameras:
                self._inputs.append(Inputs(self, self.settings, camera, pipeline))
        except Exception as error:
            self._stop()
            super().on_deactivate(state)  # the publishers are active already
            return self._failed('activate', error)
        topics = ', '.join(f"'{inputs.topic}'" for inputs in self._inputs)
        self.get_logger().info(f'waiting for images on {topics}')
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and publish the results of the last images."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the network and end the publishers."""
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, unload the network and end the publishers."""
        self._stop()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to the unconfigured state."""
        return self.on_shutdown(state)

    def close(self) -> None:
        """Stop processing images; to be called before the process ends."""
        self._stop()

    def _failed(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        self.error = ' '.join(str(error).split())
        self.get_logger().error(f'cannot {transition}: {self.error}')
        return TransitionCallbackReturn.FAILURE

    def _stop(self) -> None:
        inputs, self._inputs = self._inputs, []
        for one in inputs:
            one.destroy()
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.stop(_STOP_SECONDS)

    def _unload(self) -> None:
        for camera in self._cameras:
            if camera.outputs is not None:
                camera.outputs.destroy()
                camera.outputs = None
        if self._pair is not None:
            self._pair.destroy()
            self._pair = None
        self._unloaded, self._engine = self.settings, None
        free_memory()

    # Parameters, services and diagnostics.

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Check and load all that the new values need; only then use them, all at once."""
        values = changed_values(parameters)
        if not values:
            return SetParametersResult(successful=True)
        engine = self._engine
        reload = any(SETTINGS[name].reloads for name in values)
        try:
            settings = self.settings.changed(values)
            if engine is None:
                self._unloaded = settings
                return SetParametersResult(successful=True)
            if reload:
                engine.apply(load_configuration(settings))
            else:
                engine.change_settings(settings)
        except (MDNetError, ValueError, RuntimeError) as error:
            return SetParametersResult(successful=False, reason=' '.join(str(error).split()))
        if reload:
            extractor = engine.configuration.extractor
            self.get_logger().info(
                f'loaded {extractor.name} {extractor.info.sha256[:12]} on {extractor.device}'
            )
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        engine = self._engine
        if engine is None:
            response.success, response.message = False, 'not configured'
        else:
            engine.reset()
            response.success, response.message = True, 'all tracks are restarted'
        return response

    def _publish_diagnostics(self) -> None:
        array = DiagnosticArray(status=[self._status(camera) for camera in self._cameras])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _status(self, camera: NodeCamera) -> DiagnosticStatus:
        inputs = next((one for one in self._inputs if one.camera is camera), None)
        engine, pipeline = self._engine, self._pipeline
        stereo = pipeline.stereo if pipeline is not None else None
        state = self._state_machine.current_state[1]
        about = {'state': state, 'image backend': self._converter.backend}
        silence_reason = ''
        if engine is not None:
            extractor = engine.configuration.extractor
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
            if outputs is not None and (problem := outputs.problem()):
                camera.report('output', problem)
        if inputs is not None:
            about['image topic'] = inputs.topic
            silent = [c for c in self._cameras if c.diagnostics.silence() > SILENCE]
            if camera in silent:
                silence_reason = inputs.problem()
                if silence_reason:
                    camera.report('subscription', silence_reason)
            elif silent:
                silence_reason = f"not served: no images of {', '.join(c.name for c in silent)}"
        status = camera.diagnostics.status(self.settings, about, silence_reason)
        if inputs is None:
            status.message = state
            status.level = b'\x00'
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: {camera.name or "tracker"}'
        status.hardware_id = about.get('device', '')
        return status
