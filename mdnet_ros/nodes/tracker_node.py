"""The tracker as a managed ROS 2 node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
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
from mdnet_ros.nodes.engine import (
    Engine,
    GrayImage,
    StereoProcessed,
    free_memory,
    load_extractor,
    read_mask,
)
from mdnet_ros.nodes.grouping import StampGrouper
from mdnet_ros.nodes.images import ImageConverter, check
from mdnet_ros.nodes.inputs import Inputs
from mdnet_ros.nodes.mailbox import Mailbox
from mdnet_ros.nodes.messages import camera_model, stamp_nanoseconds
from mdnet_ros.nodes.outputs import Outputs, PairOutputs
from mdnet_ros.nodes.parameters import changed_values, declare_settings
from mdnet_ros.nodes.sequence import NO_CALIBRATION, Processed
from mdnet_ros.nodes.settings import SETTINGS

#: Seconds a stopping worker may take for the frame it has in hand.
_STOP_SECONDS = 1.5


@dataclass(frozen=True)
class _Arrival:
    """An image that came; a broken one stands for its camera, and is counted already."""

    message: Any
    received: float
    broken: bool = False


class _Camera:
    """One camera of the node: what comes of it, and what is counted and told of it."""

    def __init__(self, number: int, name: str, warn: Callable[[str], object]) -> None:
        self.number = number
        self.name = name
        self.statistics = Statistics()
        self.report = Reporter(
            lambda line: warn(f'{name}: {line}' if name else line), note=self.statistics.trouble
        )
        self.inputs: Inputs | None = None
        self.outputs: Outputs | None = None

    def dropped(self, cause: str, detail: str) -> None:
        """Count an image that cannot be used, and tell why."""
        self.statistics.drop(cause, detail)
        self.report(cause, f'frame dropped, {cause}: {detail}')


class TrackerNode(LifecycleNode):
    """Camera topics in; keypoints, correspondences, tracks and an overlay out.

    configure loads the network and makes the publishers, activate subscribes, deactivate
    unsubscribes, cleanup lets the network go. Callbacks only bring the images of the cameras
    together and put them into a mailbox; one worker thread takes the newest, so outputs come in
    the order of the images.

    Raises:
        SettingError: if a parameter has a wrong value.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('tracker', **kwargs)
        self.settings = declare_settings(self)
        self.error = ''  # why the last transition failed
        warn = self.get_logger().warning
        self._cameras = [
            _Camera(number, name, warn) for number, name in enumerate(self.settings.camera_names)
        ]
        self._converter = ImageConverter()
        self._engine: Engine | None = None
        self._pair: PairOutputs | None = None
        self._stereo: StereoProcessed | None = None  # the last one
        self._arriving = threading.Lock()  # groups are to be put in the order they were made in
        self._grouper = self._new_grouper()
        self._mailbox: Mailbox[tuple[_Arrival, ...]] = Mailbox()
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
            self._mailbox = Mailbox()
            self._grouper = self._new_grouper()
            self._worker = threading.Thread(target=self._work, name='tracker', daemon=True)
            self._worker.start()
            for camera in self._cameras:
                camera.inputs = Inputs(
                    self, self.settings, camera.name, partial(self._on_image, camera),
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
        with self._arriving:
            self._count_drops(self._mailbox.close(), 'deactivated')
            for number, arrival in self._grouper.clear():
                if not arrival.broken:
                    self._cameras[number].statistics.drop('deactivated')
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join(_STOP_SECONDS)
            self._worker = None

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

    # Frames.

    def _new_grouper(self) -> StampGrouper[_Arrival]:
        return StampGrouper(
            len(self._cameras), round(self.settings.max_stamp_difference * 1e9)
        )

    def _on_image(self, camera: _Camera, message: Image | CompressedImage) -> None:
        arrival = _Arrival(message, camera.statistics.arrival())
        try:
            check(message)
        except ImageError as error:  # before it could take the place of a good one
            camera.dropped('bad image', str(error))
            arrival = replace(arrival, broken=True)
        with self._arriving:
            grouped = self._grouper.add(camera.number, stamp_nanoseconds(message.header), arrival)
            for number, left_over in grouped.left_over:
                if not left_over.broken:
                    self._cameras[number].dropped('no partner', self._no_partner(number))
            if grouped.group is not None and not all(one.broken for one in grouped.group):
                self._count_drops(self._mailbox.put(grouped.group), 'overload')

    def _no_partner(self, number: int) -> str:
        others = ', '.join(c.name for c in self._cameras if c.number != number)
        within = self.settings.max_stamp_difference
        return f'no image of {others} with ' + (
            f'a stamp within {within:g} s (max_stamp_difference)' if within else
            'the same stamp; set max_stamp_difference where the cameras are not triggered together'
        )

    def _count_drops(self, group: tuple[_Arrival, ...] | None, cause: str) -> None:
        for camera, arrival in zip(self._cameras, group or (), strict=False):
            if not arrival.broken:
                camera.statistics.drop(cause)

    def _on_camera_info(self, camera: _Camera, message: CameraInfo) -> None:
        engine = self._engine
        if engine is None:
            return
        try:
            engine.cameras[camera.number].model = camera_model(message, self.settings.rectified)
        except DataError as error:
            camera.report('camera_info', f'{error}; the last good one is kept')

    def _on_mask(self, camera: _Camera, message: Image) -> None:
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

    def _work(self) -> None:
        mailbox = self._mailbox
        while (group := mailbox.take()) is not None:
            waiting = {
                number: arrival for number, arrival in enumerate(group) if not arrival.broken
            }
            try:
                self._serve(waiting)
            except Exception as error:  # the node lives on whatever a frame brings
                for number in waiting:
                    self._cameras[number].dropped(
                        'failed', ' '.join(f'{type(error).__name__}: {error}'.split())
                    )

    def _serve(self, waiting: dict[int, _Arrival]) -> None:
        """Track the images of some cameras; takes away each one that is counted."""
        engine, settings = self._engine, self.settings
        if engine is None:
            for number in list(waiting):
                self._cameras[number].statistics.drop('deactivated')
                del waiting[number]
            return
        images: dict[int, GrayImage] = {}
        refused: dict[int, ImageError] = {}
        for number, arrival in waiting.items():
            message = arrival.message
            try:
                pixels = self._converter.gray(message)
                images[number] = GrayImage(pixels, stamp_nanoseconds(message.header))
            except ImageError as error:
                refused[number] = error
        group = engine.process_group(images)
        for number, error in (refused | group.refused).items():
            self._cameras[number].dropped('bad image', str(error))
            del waiting[number]
        served = [
            (self._cameras[number], waiting[number], done) for number, done in group.done.items()
        ]
        # What odometry waits for goes first, what takes longest last.
        for camera, arrival, done in served:
            if camera.outputs is not None:
                camera.outputs.publish_links(done, arrival.message.header, settings)
        if self._pair is not None and 0 in group.done:
            self._stereo = group.stereo
            self._pair.publish(
                group.done[0], group.done.get(1), group.stereo, waiting[0].message.header, settings
            )
        for camera, arrival, done in served:
            message = arrival.message
            if camera.outputs is not None:
                camera.outputs.publish_keypoints(done, message.header, settings)
            age = (self.get_clock().now().nanoseconds - done.frame.stamp_ns) * 1e-9
            restart = done.restart.cause if done.restart else ''
            camera.statistics.done(done.frame, arrival.received, age, restart)
            del waiting[camera.number]
            self._tell(camera, done)
        if group.stereo is not None and group.stereo.calibration_error not in ('', NO_CALIBRATION):
            self._cameras[0].report(
                'stereo calibration',
                f'left-right matches are checked without it: {group.stereo.calibration_error}',
            )
        for camera, arrival, done in served:
            if camera.outputs is not None:
                camera.outputs.publish_overlay(
                    done, arrival.message.header, settings,
                    partial(self._converter.bgr, arrival.message),
                )

    def _tell(self, camera: _Camera, done: Processed) -> None:
        if done.restart is not None:
            camera.report(done.restart.cause, f'tracks begin anew: {done.restart}')
        if done.repeated:
            camera.statistics.repeated_stamps += 1
            camera.report(
                'repeated stamp', 'two images with the same stamp, velocities are unknown'
            )
        if done.calibration_error:
            camera.report('calibration', f'no tracks published: {done.calibration_error}')
        if done.fell_back:
            camera.report('memory', 'the GPU has no memory left: the network runs on the CPU now')

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
            self._grouper.max_difference_ns = round(settings.max_stamp_difference * 1e9)
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

    def _status(self, camera: _Camera) -> DiagnosticStatus:
        inputs, engine, stereo = camera.inputs, self._engine, self._stereo
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
        if inputs is not None:
            about['image topic'] = inputs.topic
            if camera.statistics.silence() > SILENCE:
                trouble = inputs.trouble()
                if trouble:
                    camera.report('subscription', trouble)
        status = camera.statistics.status(self.settings, about, trouble)
        if inputs is None:
            status.message = state
            status.level = b'\x00'
        status.name = f'{self.get_fully_qualified_name().lstrip("/")}: {camera.name or "tracker"}'
        status.hardware_id = about.get('device', '')
        return status
