"""verl's workers with a variant's loss: weights where a step's rows are known, a loss where verl asks for one."""

from contextlib import nullcontext

from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from core.randomness import torch_generator
from experiments.bridges.verl.maths import STEP, StepMaths, no_step
from experiments.bridges.verl.settings import Settings


class BridgedActor(TrainingWorker):  # type: ignore[misc]
    """One optimizer step is one `train_batch`: there all its rows are known, before it is split into micro-batches."""

    maths: StepMaths
    seed = 0
    taken = (0, 0)
    """The rollout, and the optimizer steps on it so far."""

    def train_batch(self, data: TensorDict) -> TensorDict:
        """Weigh the step's tokens on all ranks, then let verl step; a step without a gradient is not taken."""
        engine = self.engine
        group, rank = engine.get_data_parallel_group(), engine.get_data_parallel_rank()
        rollout = int(tensordict_utils.get_non_tensor_data(data, STEP, default=0))
        index = self.taken[1] if self.taken[0] == rollout else 0
        self.taken = (rollout, index + 1)
        draw = torch_generator(self.seed, "objective", rollout, index)
        is_counted = self.maths.weigh(data, group, rank, engine.get_data_parallel_size(), draw)
        with nullcontext() if is_counted else no_step(engine):
            return super().train_batch(data)


class BridgedWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """verl's hybrid worker, whose actor takes a variant's steps."""

    actor_worker_cls = BridgedActor

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def init_model(self) -> None:
        """Build the models, then the variant, and hand its loss to the actor."""
        super().init_model()
        if self.actor is not None:
            settings, rollout = Settings.of(self.config.grpolab), self.config.rollout
            self.actor.maths = StepMaths(settings.make(), int(rollout.response_length), int(rollout.n))
            self.actor.seed = settings.seed
            self.actor.set_loss_fn(self.actor.maths.loss)
