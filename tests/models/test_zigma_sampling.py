"""Paths, losses and samplers against the published ones, and against what can be known without them."""

import itertools
import math

import pytest
import torch
from test_zigma_parity import gradients, network_of

from mamba_vision.models.diffusion import Sampler, Transport, log_likelihood
from mamba_vision.models.diffusion.ode import dopri5, euler, heun
from mamba_vision.models.diffusion.paths import FORMS, diffusion_form

PUBLISHED_PATHS = {"Linear": "linear", "GVP": "gvp", "VP": "vp"}
PUBLISHED_FORMS = {"SBDM": "sbdm", "inccreasing-decreasing": "increasing-decreasing"}


def transport_outputs(published: str, given: dict) -> dict[str, torch.Tensor]:
    """Everything that the recorded case says of one path."""
    name = PUBLISHED_PATHS[published]
    x0, x1, said, t = (given[key] for key in ("x0", "x1", "model_output", "t"))
    path = Transport(name).path
    (alpha, d_alpha), (sigma, d_sigma) = path.alpha(t), path.sigma(t)
    xt, ut = path.point(x0, x1, t)
    out = dict(alpha=alpha, d_alpha=d_alpha, sigma=sigma, d_sigma=d_sigma, xt=xt, ut=ut)
    out |= dict(drift=path.drift(xt, t), diffusion_coefficient=path.diffusion(t))
    for name_out in ("score_from_velocity", "noise_from_velocity", "velocity_from_score"):
        out[name_out] = getattr(path, name_out)(said, xt, t)
    for form in ("SBDM", "sigma", "linear", "decreasing", "inccreasing-decreasing"):
        out[f"w_{form}"] = diffusion_form(path, PUBLISHED_FORMS.get(form, form), t, 0.7)
    for prediction in ("velocity", "noise", "score"):
        for weight in (None, "velocity", "likelihood")[: 1 if prediction == "velocity" else 3]:
            transport = Transport(name, prediction, weight)
            loss, _ = transport.losses(lambda x, times: said, x1, x0, t)
            out[f"loss_{prediction}_{weight}"] = loss
        out[f"ode_drift_{prediction}"] = transport.flow(said, xt, t)
        out[f"score_{prediction}"] = transport.score(said, xt, t)
    return {f"{published}_{key}": value for key, value in out.items()}


def test_paths(golden):
    case = golden("zigma/transport_paths")
    outputs = {}
    for published in PUBLISHED_PATHS:
        outputs |= transport_outputs(published, case.inputs())
    assert set(outputs) == set(case.outputs)
    case.check(**outputs)


def test_loss(golden):
    case = golden("zigma/loss_velocity")
    model, given = network_of(case), case.inputs()
    loss, said = Transport().losses(lambda x, t: model(x, t, given["y"]), given["x1"], given["x0"], given["t"])
    case.check(gradients(case, model, loss=loss, pred=said), loss=loss, pred=said)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("ode_euler", Sampler("euler", num_steps=6)),
        ("ode_dopri5", Sampler("dopri5", num_steps=4)),
        ("sde_euler", Sampler("sde_euler", num_steps=6)),
        ("sde_heun", Sampler("sde_heun", num_steps=5, diffusion="linear", last_step="euler", last_step_size=0.1)),
    ],
)
def test_sampling(golden, name, sampler):
    case = golden(f"zigma/sample_{name}")
    model, given = network_of(case), case.inputs()
    draws = iter(given.get("noise", ()))
    with torch.no_grad():
        states = list(sampler(Transport(), lambda x, t: model(x, t, given["y"]), given["z"], lambda x: next(draws)))
    case.check(trajectory=torch.stack(states), final=states[-1])
    assert next(draws, None) is None


# ---- without recorded cases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["linear", "gvp", "vp"])
def test_paths_by_autograd(path):
    path = Transport(path).path
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    for value, rate in (path.alpha(t), path.sigma(t)):
        torch.testing.assert_close(torch.autograd.grad(value.sum(), t)[0], rate)


def test_solvers_have_their_orders():
    """x' = -x cos(t) has x(t) = exp(-sin t)."""
    start = torch.ones(2, dtype=torch.float64)

    def field(x, t):
        return -x * torch.cos(t)

    def error(solve, steps):
        *_, end = solve(field, start, torch.linspace(0, 2, steps + 1, dtype=torch.float64))
        return float((end - math.exp(-math.sin(2))).abs().max())

    assert 1.8 < error(euler, 100) / error(euler, 200) < 2.2
    assert 3.6 < error(heun, 100) / error(heun, 200) < 4.4
    for tolerance in (1e-4, 1e-7):
        times = torch.tensor([0.0, 0.3, 0.31, 2.0], dtype=torch.float64)
        states = list(dopri5(field, start, times, tolerance, tolerance))
        wanted = torch.exp(-torch.sin(times))[:, None].expand(-1, 2)
        assert (torch.stack(states) - wanted).abs().max() < 10 * tolerance
        *_, back = dopri5(field, states[-1], times.flip(0), tolerance, tolerance)
        assert (back - start).abs().max() < 100 * tolerance


def test_dopri5_stays_where_values_are_finite():
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    start = torch.zeros(1, dtype=torch.float64)
    *_, end = dopri5(lambda x, t: 0.5 / torch.sqrt(1.0001 - t) + 0 * x, start, times)  # not a number beyond t = 1.0001
    assert abs(float(end) - (math.sqrt(1.0001) - 0.01)) < 3e-3
    with pytest.raises(FloatingPointError, match="no finite values to begin with at t = 0"):
        list(dopri5(lambda x, t: x / 0, torch.ones(1), torch.tensor([0.0, 1.0])))
    with pytest.raises(FloatingPointError, match=r"no finite values to go on with at t = 0\.5"):
        list(dopri5(lambda x, t: torch.sqrt(0.5 - t) + 0 * x, torch.ones(1), torch.tensor([0.0, 1.0])))


def gaussian_network(transport: Transport, mean: float, spread: float):
    """What a perfect network says of data drawn from a normal distribution: everything is known in closed form."""

    def network(x, t):
        at = [v.reshape(-1, *[1] * (x.ndim - 1)) for v in (*transport.path.alpha(t), *transport.path.sigma(t))]
        alpha, d_alpha, sigma, d_sigma = at
        variance = (alpha * spread) ** 2 + sigma**2
        score = -(x - alpha * mean) / variance
        if transport.prediction == "score":
            return score
        if transport.prediction == "noise":
            return -sigma * score
        slope = (alpha * d_alpha * spread**2 + sigma * d_sigma) / variance
        return d_alpha * mean + slope * (x - alpha * mean)

    return network


@pytest.mark.parametrize("prediction", ["velocity", "noise", "score"])
@pytest.mark.parametrize("path", ["linear", "gvp", "vp"])
@pytest.mark.parametrize("method", ["heun", "dopri5", "sde_euler", "sde_heun"])
def test_samples_have_the_right_distribution(path, prediction, method):
    transport = Transport(path, prediction)
    noise = torch.randn(4000, 2, dtype=torch.float64)
    sampler = Sampler(method, num_steps=60)
    *_, end = sampler(transport, gaussian_network(transport, 1.5, 0.5), noise)
    # An SDE's last step adds no noise: what is left of it there, 0.04 at most, narrows the samples a little.
    assert abs(end.mean() - 1.5) < 0.05 and abs(end.std() - 0.5) < 0.05, (end.mean(), end.std())


@pytest.mark.parametrize("last_step", ["mean", "euler", "tweedie", "none"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_last_step(form, last_step):
    transport = Transport()
    sampler = Sampler("sde_euler", 250, diffusion=form, diffusion_norm=0.5, last_step=last_step)
    states = list(sampler(transport, gaussian_network(transport, 1.5, 0.5), torch.randn(2000, 2)))
    assert len(states) == 249 + (last_step != "none")
    assert abs(states[-1].mean() - 1.5) < 0.06 and abs(states[-1].std() - 0.5) < 0.06


@pytest.mark.parametrize("path", ["linear", "gvp", "vp"])
def test_heun_without_a_last_step_stays_where_scores_are_finite(path):
    transport = Transport(path)
    sampler = Sampler("sde_heun", 100, last_step="none")
    *_, end = sampler(transport, gaussian_network(transport, 1.5, 0.5), torch.randn(2000, 2))
    assert abs(end.mean() - 1.5) < 0.06 and abs(end.std() - 0.5) < 0.06


@pytest.mark.parametrize("path", ["linear", "vp"])
def test_likelihood_of_a_normal_distribution(path):
    """In one dimension a probe's estimate is exact."""
    transport = Transport(path)
    x1 = 1.5 + 0.5 * torch.randn(50, 1, dtype=torch.float64)
    found, x0 = log_likelihood(transport, gaussian_network(transport, 1.5, 0.5), x1, rtol=1e-6, atol=1e-8)
    wanted = torch.distributions.Normal(1.5, 0.5).log_prob(x1)[:, 0]
    # The variance-preserving path begins with 0.66 % of data in its noise, which is not quite the normal prior.
    torch.testing.assert_close(found, wanted, rtol=0, atol=4e-2 if path == "vp" else 1e-4)
    assert x0.shape == x1.shape


def test_intervals():
    assert Transport().interval(Transport().train_eps) == (0.0, 1.0)
    vp, noise = Transport("vp"), Transport("linear", "noise")
    assert (vp.train_eps, vp.sample_eps) == (1e-5, 1e-3) and vp.interval(1e-3) == (0.0, 0.999)
    assert noise.interval(noise.sample_eps) == (1e-3, 0.999)
    assert Transport().sde_interval("sigma", 0.04) == (0.0, 0.96)
    assert Transport().sde_interval("sbdm", 0.04) == (1e-3, 0.96)
    assert noise.sde_interval("sigma", 0.0) == (1e-3, 0.999)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transport("cosine"), "path: found 'cosine', expected one of linear, gvp, vp"),
        (lambda: Transport(prediction="x0"), "prediction: found 'x0'"),
        (lambda: Transport(loss_weight="snr"), "loss_weight: found 'snr'"),
        (lambda: Transport("vp", train_eps=0.7), "train_eps: found 0.7"),
        (lambda: Sampler("rk4"), "method: found 'rk4'"),
        (lambda: Sampler(num_steps=1), "num_steps: found 1"),
        (lambda: Sampler(diffusion="sine"), "diffusion: found 'sine'"),
        (lambda: Sampler(last_step="heun"), "last_step: found 'heun'"),
        (lambda: Sampler(last_step_size=0), "last_step_size: found 0"),
        (lambda: diffusion_form(Transport().path, "sine", torch.ones(1)), "diffusion: found 'sine'"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_ode_state_can_be_stopped_early():
    """Solvers are iterators: who wants the first states computes no more."""
    calls = []
    states = Sampler("euler", 100)(Transport(), lambda x, t: calls.append(1) or -x, torch.ones(1, 2))
    assert len(list(itertools.islice(states, 4))) == 4 and len(calls) == 3
