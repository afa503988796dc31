"""Scheduler classes of the diffusers library: a table each of the keys that it reads and what they are here."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from genzoo_plugins.formats.rows import Clash, Number, Refused, Words
from genzoo_plugins.formats.spacings import ALONE, CUT, INNER, MIDWAY, PSEUDO, RATIOS, STRIDED, WHOLE, Times

#: The last abar of a schedule rescaled to end in pure noise, where a class keeps sigma / alpha finite.
TINY = 2.0**-24


@dataclass(frozen=True)
class Sampler:
    """A scheduler class of the library. It passes over a key that it does not know: conversions between classes leave
    such keys behind.

    Attributes:
        methods: the values of ``by`` -> the registered scheduler that those make, with the options that it then has.
        by: keys that choose the method, and their values where a file has none.
        rows: the keys that are options of the method.
        refused, clashes: what is not understood, alone and together.
        times: how its times lie; None where the rows say it.
        clips: clip_sample where a file has none; None for a class that does not know it.
        keeps_eps: where x_0 is clipped, the step goes on with the network's own eps.
        thresholds: it knows "thresholding".
        terminal: the last abar under rescale_betas_zero_snr; None for a class that does not know it.
        betas: beta_start, beta_end and beta_schedule, where a file has none.
        pipeline: the pipeline of one U-Net that walks by it; "" where none does, as none scales what a network is given
            and some hand over arguments that a class does not take: such a class is read, and never written.
        arguments: options of the method that are arguments of the pipeline there.
        idle: keys that the class takes and never reads.
        steps: by default.
    """

    methods: Mapping[tuple[object, ...], str]
    by: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    rows: tuple[Words | Number, ...] = ()
    refused: tuple[Refused, ...] = ()
    clashes: tuple[Clash, ...] = ()
    times: Times | None = None
    clips: bool | None = None
    keeps_eps: bool = False
    thresholds: bool = False
    terminal: float | None = None
    betas: tuple[float, float, str] = (1e-4, 0.02, "linear")
    pipeline: str = ""
    arguments: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    steps: int = 50

    @property
    def names(self) -> tuple[str, ...]:
        """The registered schedulers that it can be, each once."""
        return tuple(dict.fromkeys(method.partition(":")[0] for method in self.methods.values()))

    def variants(self, name: str) -> dict[tuple[object, ...], str]:
        """The values of ``by`` that make the scheduler of that name -> the options that it then has."""
        parts = {values: method.partition(":") for values, method in self.methods.items()}
        return {values: options for values, (method, _, options) in parts.items() if method == name}


FLOWS = (
    Refused("use_flow_sigmas", (False,), "the levels of a flow belong to models of flow matching; write false"),
    Refused("use_dynamic_shifting", (False,), "it shifts the levels of a flow by the image's size; write false"),
)
LEARNED = Refused(
    "variance_type",
    (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "a pipeline of one U-Net has no place for a learned variance; write null",
)
BEGINNING = Refused("lambda_min_clipped", (float("-inf"),), "no scheduler here begins there; leave the key out")
LOWER_ORDER = {True: "", False: "lower_order_final=false"}
FINAL = Words("final_sigmas_type", "zero", {"zero": "", "sigma_min": "end=1"})
IN_PLACE = Clash(
    {"final_sigmas_type": ("sigma_min",), "use_karras_sigmas": (True,)},
    "its last step would end where it begins, where log-SNR has no step; write 'zero'",
)
#: What conversions between classes leave behind, and the class reads as its own default.
STRAYS = ("midpoint", "heun", "logrho", "bh1", "bh2")

NO_WORD = "the class itself raises an error for any other; write another class"


def _few_step(method: str, *rows: Number, idle: Set[str] = frozenset()) -> Sampler:
    """Of latent or trajectory consistency: the times that a network was distilled on, and what else is the class's."""
    return Sampler(
        {(): method},
        rows=(Number("original_inference_steps", 50, "distilled", 50, 1, 100_000), *rows),
        terminal=0.0,
        betas=(0.00085, 0.012, "scaled_linear"),
        idle=frozenset({"timestep_spacing", "steps_offset", "set_alpha_to_one"}) | idle,
        pipeline="DDPMPipeline",
        steps=4,
    )


SAMPLERS: dict[str, Sampler] = {
    "DDPMScheduler": Sampler(
        {(): "ddpm"},
        rows=(
            Words(
                "variance_type",
                "fixed_small",
                {"fixed_small": "", "fixed_small_log": "", "fixed_large": "variance=large"},
                why="a learned variance has no place in a pipeline of one U-Net",
            ),
        ),
        clashes=tuple(
            Clash(
                {"variance_type": ("fixed_large",), key: values},
                "the library adds noise to the finished image there; write 'fixed_small'",
            )
            for key, values in (("timestep_spacing", ("trailing",)), ("steps_offset", range(1, 1001)))
        ),
        times=WHOLE,
        clips=True,
        thresholds=True,
        terminal=0.0,
        pipeline="DDPMPipeline",
        steps=1000,
    ),
    "DDIMScheduler": Sampler(
        {(): "ddim"},
        rows=(Words("set_alpha_to_one", True, {True: "", False: "end=1"}),),
        times=STRIDED,
        clips=True,
        keeps_eps=True,
        thresholds=True,
        terminal=0.0,
        arguments=frozenset({"eta", "clip"}),
        pipeline="DDIMPipeline",
    ),
    "PNDMScheduler": Sampler(
        {(True,): "plms", (False,): "pndm:middle=whole"},
        by={"skip_prk_steps": False},
        rows=(
            Words("set_alpha_to_one", False, {True: "", False: "end=1"}),
            Words("prediction_type", "epsilon", {"epsilon": "", "v_prediction": "mean=v"}, why=NO_WORD),
        ),
        times=PSEUDO,
        pipeline="PNDMPipeline",
    ),
    "DPMSolverMultistepScheduler": Sampler(
        {
            ("dpmsolver++", 1): "dpmpp-1s",
            ("dpmsolver++", 2): "dpmpp-2m",
            ("dpmsolver++", 3): "dpmpp-3m:variant=published",
            ("sde-dpmsolver++", 2): "dpmpp-2m-sde",
        },
        by={"algorithm_type": "dpmsolver++", "solver_order": 2},
        rows=(
            Words(
                "solver_type",
                "midpoint",
                {word: "variant=heun" if word == "heun" else "" for word in STRAYS},
                only=("dpmpp-2m", "dpmpp-2m-sde"),
            ),
            Words("lower_order_final", True, LOWER_ORDER, only=("dpmpp-2m", "dpmpp-3m", "dpmpp-2m-sde")),
            FINAL,
        ),
        refused=(
            *FLOWS,
            LEARNED,
            Refused("use_lu_lambdas", (False,), "no scheduler here spreads its times so; write use_karras_sigmas"),
            BEGINNING,
        ),
        clashes=(
            IN_PLACE,
            Clash(
                {"euler_at_final": (True,), "final_sigmas_type": ("sigma_min",)},
                "no scheduler here lowers the order of that step alone; write false",
            ),
            Clash(
                {"solver_type": ("heun",), "solver_order": (3,)},
                "the steps of second order that it begins and ends with are taken by 'midpoint' here; write that",
            ),
            Clash(
                {"use_karras_sigmas": (True,), "beta_schedule": ("squaredcos_cap_v2",)},
                CUT,
            ),
        ),
        times=INNER,
        thresholds=True,
        terminal=TINY,
        pipeline="DDPMPipeline",
    ),
    "DPMSolverSinglestepScheduler": Sampler(
        {("dpmsolver++", 2): "dpmpp-2s:middle=grid", ("dpmsolver++", 1): "dpmpp-1s"},
        by={"algorithm_type": "dpmsolver++", "solver_order": 2},
        rows=(
            Words("solver_type", "midpoint", dict.fromkeys((w for w in STRAYS if w != "heun"), ""), only=("dpmpp-2s",)),
            # The library sets it where the walk ends in clean data.
            Words("lower_order_final", False, {True: "", False: ""}),
            Words("final_sigmas_type", "zero", {"zero": ""}, why="the last step is first-order here; write zero"),
        ),
        refused=(*FLOWS, LEARNED, BEGINNING),
        times=ALONE,
        thresholds=True,
    ),
    "UniPCMultistepScheduler": Sampler(
        {(order,): f"unipc:order={order}" for order in (2, 1, 3)},
        by={"solver_order": 2},
        rows=(
            # bh1 divides 0 by 0 in its last step there.
            Words("solver_type", "bh2", {"bh2": "", **dict.fromkeys(STRAYS[:3], "")}, why="bh1 ends in NaN there"),
            Words("lower_order_final", True, LOWER_ORDER),
            FINAL,
        ),
        refused=(
            *FLOWS,
            Refused("predict_x0", (True,), "no scheduler here is a UniPC of eps; write true"),
            Refused("disable_corrector", ([],), "a scheduler here corrects every step or none; write []"),
            Refused("solver_p", (None,), "a predictor of another class is not read; write null"),
            Refused("shift_terminal", (None,), "it moves the levels of a flow; write null"),
        ),
        clashes=(
            IN_PLACE,
            Clash(
                {"lower_order_final": (False,), "final_sigmas_type": ("zero",)},
                "its last step, of higher order into clean data, ends in NaN there; write true",
            ),
        ),
        times=INNER,
        thresholds=True,
        terminal=TINY,
    ),
    "DEISMultistepScheduler": Sampler(
        {(order,): f"deis:order={order},end=1" for order in (2, 1, 3)},
        by={"solver_order": 2},
        rows=(
            Words("solver_type", "logrho", dict.fromkeys(("logrho", *STRAYS), "")),
            Words("algorithm_type", "deis", dict.fromkeys(("deis", "dpmsolver", "dpmsolver++"), "")),
            Words("lower_order_final", True, LOWER_ORDER),
        ),
        refused=FLOWS,
        times=INNER,
        thresholds=True,
    ),
    "EulerDiscreteScheduler": Sampler(
        {(): "euler"},
        rows=(
            Words("final_sigmas_type", "zero", {"zero": ""}, why="an image of another class's scale would be left"),
            Words("interpolation_type", "linear", {"linear": ""}, why="others are not of the times told; write linear"),
        ),
        clashes=(
            Clash(
                {"timestep_type": ("continuous",), "prediction_type": ("v_prediction",)},
                "such a network is told the logarithm of its level in place of a time; no U-Net here is",
            ),
        ),
        times=RATIOS,
        terminal=TINY,
    ),
    "EulerAncestralDiscreteScheduler": Sampler(
        {(): "euler-ancestral"},
        clashes=(Clash({"prediction_type": ("sample",)}, NO_WORD),),
        times=replace(RATIOS, ramped={}),
        terminal=TINY,
    ),
    "HeunDiscreteScheduler": Sampler({(): "heun"}, times=RATIOS, clips=False, betas=(0.00085, 0.012, "linear")),
    "LMSDiscreteScheduler": Sampler({(): "lms"}, times=RATIOS),
    "KDPM2DiscreteScheduler": Sampler(
        {(): "dpm-2"},
        clashes=(Clash({"prediction_type": ("sample",)}, NO_WORD),),
        times=MIDWAY,
        betas=(0.00085, 0.012, "linear"),
    ),
    "LCMScheduler": replace(
        _few_step("lcm", Number("timestep_scaling", 10.0, "scaling", 10.0, 1e-6, 1e6)),
        clips=False,
        thresholds=True,
    ),
    "TCDScheduler": _few_step(
        "tcd:end=1", idle={"clip_sample", "clip_sample_range", "thresholding", "timestep_scaling"}
    ),
}

#: The same walks, in the library's classes for many steps at once.
PARALLEL = ("DDPM", "DDIM")
SAMPLERS |= {f"{name}ParallelScheduler": replace(SAMPLERS[f"{name}Scheduler"], pipeline="") for name in PARALLEL}

#: Every key that a scheduler of images of the library reads: one that the class at hand does not know has no effect.
KNOWN = frozenset({"beta_end", "beta_schedule", "beta_start", "num_train_timesteps", "rescale_betas_zero_snr"})
KNOWN |= {"sigma_schedule", "snr_shift_scale", "trained_betas"}
KNOWN |= {"clip_sample", "clip_sample_range", "dynamic_thresholding_ratio", "predict_x0"}
KNOWN |= {"prediction_type", "sample_max_value", "thresholding", "variance_type"}
KNOWN |= {"final_sigmas_type", "flow_shift", "interpolation_type", "lambda_min_clipped"}
KNOWN |= {"set_alpha_to_one", "shift_terminal", "sigma_data", "sigma_max", "sigma_min", "steps_offset"}
KNOWN |= {"time_shift_type", "timestep_scaling", "timestep_spacing", "timestep_type", "use_beta_sigmas"}
KNOWN |= {"use_dynamic_shifting", "use_exponential_sigmas", "use_flow_sigmas", "use_karras_sigmas"}
KNOWN |= {"use_lu_lambdas"}
KNOWN |= {"algorithm_type", "corrector_order", "disable_corrector", "eta", "euler_at_final"}
KNOWN |= {"lower_order_final", "noise_sampler_seed", "original_inference_steps", "predictor_order"}
KNOWN |= {"s_churn", "skip_prk_steps", "solver_order", "solver_p", "solver_type", "tau_func"}
