"""The training loop: from photographs to weights that can be shipped.

A run lives in one folder: ``checkpoint.pt`` (to resume), ``best.safetensors`` and
``last.safetensors`` (to use), ``tensorboard/``, ``config.yaml``, ``summary.json``.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mdnet_ros.allocator import return_memory, tune_allocator
from mdnet_ros.errors import DataError, WeightsError
from mdnet_ros.features.network import MDNet, MDNetConfig, count_parameters, grow
from mdnet_ros.features.weights import load_weights, save_weights
from mdnet_ros.files import write_text
from mdnet_ros.progress import Progress
from mdnet_ros.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdnet_ros.training.config import TrainingConfig
from mdnet_ros.training.data import Prefetcher, step_generator
from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.journal import Journal
from mdnet_ros.training.objective import LossTerms, draw, objective
from mdnet_ros.training.schedule import learning_rate
from mdnet_ros.training.summary import RunSummary, describe_device
from mdnet_ros.training.validation import ValidationMetrics, validate, validation_pairs
from mdnet_ros.training.views import ViewPair
from mdnet_ros.training.weight_average import WeightAverage

_LOG = logging.getLogger(__name__)
#: Steps timed to find how many fit into a time budget, after as many to warm up.
_TIMED_STEPS = 10


def _precision(name: str, device: torch.device) -> torch.dtype:
    """The type to compute in; a CPU that has no bf16 would take ten times as long with it."""
    if name == 'auto':
        native = device.type == 'cuda' or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        name = 'bf16' if native else 'fp32'
    return torch.bfloat16 if name == 'bf16' else torch.float32


def _starting_network(
    config: TrainingConfig, weights: str | None
) -> tuple[MDNet, dict[str, Any]]:
    """Build the network to train, and say where its weights came from.

    Args:
        config: configuration of the run; a number of sets that it asks for must be that of the
            weights.
        weights: a shipped name or a file; None starts from random numbers. The shape is that of
            the weights. A saliency head or residual blocks that they lack and a network of the same
            widths that the run asks for has begin at zero, where they change nothing.

    Raises:
        DataError: the weights have another number of sets.
        WeightsError: they cannot be loaded.
    """
    wanted = config.network_config()
    if weights is None:
        return MDNet(wanted), {}
    network, info = load_weights(weights)
    if config.num_sets not in (0, info.config.num_sets):
        raise DataError(
            f'num_sets: the weights to start from have {info.config.num_sets}, '
            f'got {config.num_sets}'
        )
    grown = grow(network, wanted)
    if grown.config != info.config:
        _LOG.warning('%s: grows from %s to %s', weights, info.config, grown.config)
    return grown, {
        'from_weights_sha256': info.sha256, 'from_weights_training': info.training
    }


def _network_of(checkpoint: Checkpoint, config: TrainingConfig, path: Path) -> MDNet:
    """Build the network that a checkpoint holds; old ones do not say its shape, and have no blocks.

    Args:
        checkpoint: the run to go on with.
        config: configuration of the run.
        path: file of the checkpoint, to be named in errors.

    Raises:
        WeightsError: the checkpoint's weights are of another shape.
    """
    try:
        shape = (
            MDNetConfig.from_dict(checkpoint.shape) if checkpoint.shape
            else replace(config.network_config(), blocks=(0, 0, 0))
        )
        network = MDNet(shape)
        network.load_state_dict(checkpoint.network)
    except (ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:160]
        raise WeightsError(
            f"checkpoint '{path}': does not fit the network '{config.network}': {reason}"
        ) from None
    return network


class Trainer:
    """One training run, alone or as one of several processes under ``torchrun``.

    Args:
        config: configuration of the run.
        training: photographs to train on.
        validation: photographs held back.
        out: folder of the run.
        device: to train on.
        minutes: time budget; the schedule is fitted into it. None trains ``config.steps``.
        from_weights: weights file to start from.
        resume: go on from the folder's checkpoint.
        new_length: when resuming, change the schedule to so many steps in all; the learning rate
            goes on from where that schedule has it.
        provenance: what the weights file should say of its data.

    Raises:
        DataError: the folder already holds a run and ``resume`` is not given, or the weights to
            start from have another number of sets than is asked for.
        WeightsError: the checkpoint or the weights to start from cannot be loaded.
    """

    def __init__(
        self,
        config: TrainingConfig,
        training: ImagePool,
        validation: ImagePool,
        out: Path,
        device: torch.device,
        minutes: float | None = None,
        from_weights: str | None = None,
        resume: bool = False,
        new_length: int | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.out, self.device = config, out, device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.minutes = minutes
        self.provenance = provenance or {}
        self.precision = _precision(config.precision, device)
        self.checkpoint_path = out / 'checkpoint.pt'
        if self.checkpoint_path.exists() and not resume:
            raise DataError(f"out '{out}': already holds a run; give --resume or another folder")
        if device.type == 'cpu':
            tune_allocator()
        torch.manual_seed(config.seed)
        restored = None
        if resume and self.checkpoint_path.exists():
            restored = load_checkpoint(self.checkpoint_path)
            network = _network_of(restored, config, self.checkpoint_path)
            self.origin = restored.origin
        else:
            network, self.origin = _starting_network(config, from_weights)
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.network, config.averaging)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
            fused=device.type == 'cuda',
        )
        self.step, self.steps = 0, config.steps
        self.seconds = self.waited = 0.0
        self.best = float('-inf')
        if restored is not None:
            self._restore(restored)
            if new_length is not None:
                self.steps = max(new_length, self.step)
        self.pool = training.to(device)
        self.pairs = validation_pairs(validation, config.validation_pairs, device)
        return_memory()  # reading and rendering needed more at once than a step does
        self.model: nn.Module = self.network
        if self.world > 1:
            self.model = DistributedDataParallel(self.network)
        out.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(out / 'tensorboard', self.step) if self.rank == 0 else None

    def run(self) -> RunSummary:
        """Train to the end of the schedule; returns what was done."""
        if self.rank == 0:
            write_text(
                self.out / 'config.yaml', yaml.safe_dump(self.config.to_dict(), sort_keys=False)
            )
        # Shapes never change: cuDNN times its kernels once, and takes the fastest.
        torch.backends.cudnn.benchmark = True
        if self.minutes is not None and self.step == 0:
            self.steps = self._steps_that_fit(self.minutes)
        batches = Prefetcher(self.pool, self.config, self.step, self.steps, self.rank)
        bar = Progress(
            total=self.steps, initial=self.step, desc='train', unit='step',
            disable=self.rank != 0, dynamic_ncols=True,
        )
        metrics: ValidationMetrics | None = None
        try:
            while self.step < self.steps:
                terms = self._advance(batches)
                bar.update()
                end = self.step == self.steps
                if self.rank == 0 and self.journal is not None:
                    self._report(bar, terms)
                    if end or self.step % self.config.validate_every == 0:
                        metrics = self._validate(bar)
                    if end or self.step % self.config.checkpoint_every == 0:
                        self._save()
        finally:
            batches.close()
            bar.close()
        if metrics is None and self.rank == 0:
            metrics = self._measure()
        summary = self._summary(metrics)
        if self.rank == 0 and self.journal is not None:
            write_text(
                self.out / 'summary.json', json.dumps(asdict(summary), indent=2) + '\n'
            )
            self.journal.close()
        return summary

    def _advance(self, batches: Prefetcher) -> LossTerms:
        """One step of the optimiser; returns the loss terms."""
        began = time.perf_counter()
        pair = next(batches)
        self.waited += time.perf_counter() - began
        terms = self._learn(pair, self.step, self.steps)
        self.step += 1
        self.seconds += time.perf_counter() - began
        return terms

    def _learn(self, pair: ViewPair, step: int, steps: int) -> LossTerms:
        config, progress = self.config, step / steps
        for group in self.optimiser.param_groups:
            group['lr'] = learning_rate(config, step, steps)
        self.model.train()
        with torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        ):
            output = self.model(pair.images.contiguous(memory_format=torch.channels_last))
        terms = objective(
            output, pair, config.losses,
            config.curriculum.temperature(progress),
            config.curriculum.reliability(progress),
            draw(
                len(pair.to_second), config.side, step_generator(config.seed, step, self.rank, 2),
                step_generator(config.seed, step, self.rank, 3, self.device),
            ),
        )
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimiser.step()
        self.average.update()
        return terms

    def _steps_that_fit(self, minutes: float) -> int:
        """Length of the schedule that fills the budget, from a few timed steps (then undone)."""
        kept = self._state()
        batches = Prefetcher(self.pool, self.config, 0, 10**9, self.rank)
        began = time.perf_counter()
        for i in range(2 * _TIMED_STEPS):
            if i == _TIMED_STEPS:
                began = time.perf_counter()
            self._learn(next(batches), 0, 1)
            if self.device.type == 'cuda':
                torch.cuda.synchronize(self.device)
        per_step = (time.perf_counter() - began) / _TIMED_STEPS
        batches.close()
        self._restore(kept)
        steps = max(_TIMED_STEPS, int(minutes * 60 / per_step) - 2 * _TIMED_STEPS)
        if self.world > 1:  # every process must agree
            shared = torch.tensor([steps], device=self.device)
            dist.broadcast(shared, 0)
            steps = int(shared)
        return steps

    def _report(self, bar: Progress, terms: LossTerms) -> None:
        if self.step % 10 and self.step != self.steps:
            return
        values = terms.values()
        rate = 2 * self.config.batch * self.world * self.step / max(self.seconds, 1e-9)
        bar.set_postfix(
            {name: f'{values[name]:.3f}' for name in (
                'total', 'agreement', 'triplet', 'reliability', 'repeated', 'correct')}
            | {'img/s': f'{rate:.0f}'}
        )
        if self.journal is not None:
            values['images_per_second'] = rate
            values['waiting_share'] = self.waited / max(self.seconds, 1e-9)
            values['learning_rate'] = self.optimiser.param_groups[0]['lr']
            self.journal.scalars('train', values, self.step)

    def _exported(self) -> MDNet:
        """The averaged network."""
        return self.average.network

    def _measure(self) -> ValidationMetrics:
        return validate(self._exported(), self.pairs, self.precision)

    def _validate(self, bar: Progress) -> ValidationMetrics:
        metrics = self._measure()
        if self.journal is not None:
            self.journal.scalars('validation', metrics.to_dict(), self.step)
            self.journal.picture(self._exported(), self.pairs, self.step)
        complaints = metrics.complaints()
        bar.write(
            f'step {self.step}: repeatability 1/3 px {metrics.repeatability_1px:.3f}/'
            f'{metrics.repeatability_3px:.3f}, MMA 1/2/3 px {metrics.mma_1px:.3f}/'
            f'{metrics.mma_2px:.3f}/{metrics.mma_3px:.3f}, MS {metrics.ms_3px:.3f}, scores '
            f'{metrics.score_low:.2f}-{metrics.score_high:.2f}, flat {metrics.flat_share:.2f}, '
            f'overlap {metrics.overlap_1px:.2f}, hardest negative {metrics.hardest_negative:.2f}, '
            f'steadiness {metrics.steadiness_half_px:.2f}'
            + ''.join(f'\n  WARNING: {c}' for c in complaints)
        )
        score = metrics.selection_score()
        if score > self.best:
            self.best = score
            self._export('best.safetensors', metrics)
        return metrics

    def _export(self, name: str, metrics: ValidationMetrics | None) -> None:
        training = {**self.provenance, **self.origin}
        training.update(
            steps=self.step, of_steps=self.steps, pairs=self._pairs_seen(),
            seconds=round(self.seconds, 1), device=describe_device(self.device),
            seed=self.config.seed, config=self.config.to_dict(),
        )
        if metrics is not None:
            training['validation'] = metrics.to_dict()
        save_weights(self._exported(), self.out / name, training)

    def _pairs_seen(self) -> int:
        return self.step * self.config.batch * self.world

    def _state(self) -> Checkpoint:
        def copied(values: dict[str, Any]) -> dict[str, Any]:
            return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}

        optimiser = self.optimiser.state_dict()
        optimiser['state'] = {i: copied(s) for i, s in optimiser['state'].items()}
        return Checkpoint(
            self.config.to_dict(), self.network.config.to_dict(), copied(self.network.state_dict()),
            copied(self.average.network.state_dict()), optimiser, self.step, self.steps,
            self.seconds, self.waited, self.best, self.origin,
        )

    def _restore(self, state: Checkpoint) -> None:
        self.network.load_state_dict(state.network)
        self.average.network.load_state_dict(state.average)
        self.optimiser.load_state_dict(state.optimiser)
        self.step, self.steps = state.step, state.steps
        self.seconds, self.waited, self.best = state.seconds, state.waited, state.best
        self.origin = state.origin

    def _save(self) -> None:
        save_checkpoint(self._state(), self.checkpoint_path)
        self._export('last.safetensors', None)

    def _summary(self, metrics: ValidationMetrics | None) -> RunSummary:
        seconds = max(self.seconds, 1e-9)
        best: dict[str, float] = {}
        if self.rank == 0:
            _, info = load_weights(self.out / 'best.safetensors')
            best = info.training.get('validation', {})
        return RunSummary(
            steps=self.step,
            pairs=self._pairs_seen(),
            seconds=round(self.seconds, 2),
            pairs_per_second=round(self._pairs_seen() / seconds, 2),
            images_per_second=round(2 * self._pairs_seen() / seconds, 2),
            waiting_share=round(self.waited / seconds, 4),
            parameters=count_parameters(self.network),
            device=describe_device(self.device),
            processes=self.world,
            best=best,
            last=metrics.to_dict() if metrics else {},
            complaints=metrics.complaints() if metrics else [],
            finished=self.step == self.steps,
        )
