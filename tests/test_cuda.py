"""The same numbers on a GPU as on the CPU."""

import numpy as np
import pytest
import torch

from metaaudit.bilevel import (
    Batching,
    InnerMethod,
    InnerProblem,
    Objective,
    TotalHessian,
    Unrolled,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig, InnerConfig
from metaaudit.config.mislabel import MislabelConfig
from metaaudit.config.model import Conv4Config
from metaaudit.curvature import Network
from metaaudit.demo.digits import digit_tasks
from metaaudit.influence import self_influence
from metaaudit.labelnoise import cross_fit
from metaaudit.learners import MAML
from metaaudit.models import Layout, build_model

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def everything(device):
    task_set, _ = digit_tasks(n_train=4, n_eval=1, ways=3, shots=3, queries=3, seed=0)
    config = Conv4Config(name="conv4", hidden=8, ways=3)
    device = torch.device(device)
    model = build_model(config, input_shape=(1, 8, 8), ways=3).to(device, torch.float64)
    objective, params = Objective(model, MAML(0.1, 2)), model.initial()
    batching = Batching(3, device, torch.float64)
    unrolled = Unrolled(objective, params, task_set, batching)
    u = torch.ones(Layout.of(params).size, dtype=torch.float64, device=device)
    network = Network.of(model.module, torch.zeros(2, 1, 8, 8, dtype=torch.float64, device=device))
    return [
        total_gradients(unrolled).gradients,
        TotalHessian(unrolled)(u[None]).cpu().numpy(),
        weight_derivatives(unrolled, u),
        self_influence(unrolled, network),
        cross_fit(objective, params, task_set, batching, MislabelConfig(folds=3)),
        *(
            total_gradients(
                implicit(InnerProblem(*vars(unrolled).values(), 1.0), kind, network)
            ).gradients
            for kind in ("ekfac", "ggn", "cg", "dense")
        ),
    ]


def implicit(problem, inverse, network):
    config = InfluenceConfig(derivative="implicit", inner=InnerConfig(inverse=inverse))
    return InnerMethod(config, network).implicit(problem)


def test_cuda_agrees_with_the_cpu():
    for on_gpu, on_cpu in zip(everything("cuda"), everything("cpu"), strict=True):
        # Sums in another order, in double precision.
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-8, atol=1e-10)
