"""Solvers: the numerical methods that need fewer evaluations than DDPM and DDIM."""

from genzoo.hookspecs import hookimpl
from genzoo.registry import Registrar

PACKAGE = "genzoo_plugins.solvers"


@hookimpl
def register(zoo: Registrar) -> None:
    zoo.scheduler("euler", f"{PACKAGE}.euler:Euler")
    zoo.scheduler("euler-ancestral", f"{PACKAGE}.euler:EulerAncestral")
    zoo.scheduler("heun", f"{PACKAGE}.euler:Heun")
    zoo.scheduler("churn", f"{PACKAGE}.euler:Churn")
    zoo.scheduler("restart", f"{PACKAGE}.restart:Restart")
    zoo.scheduler("dpm-2", f"{PACKAGE}.dpm_solver:DPM2")
    zoo.scheduler("dpmpp-1s", f"{PACKAGE}.dpm_solver:DPMpp1S")
    zoo.scheduler("dpmpp-2s", f"{PACKAGE}.dpm_solver:DPMpp2S")
    zoo.scheduler("dpmpp-2m", f"{PACKAGE}.dpm_solver:DPMpp2M")
    zoo.scheduler("dpmpp-3m", f"{PACKAGE}.dpm_solver:DPMpp3M")
    zoo.scheduler("dpmpp-2m-sde", f"{PACKAGE}.dpm_solver:DPMpp2MSDE")
    zoo.scheduler("unipc", f"{PACKAGE}.unipc:UniPC")
    zoo.scheduler("deis", f"{PACKAGE}.multistep:DEIS")
    zoo.scheduler("lms", f"{PACKAGE}.multistep:LMS")
    zoo.scheduler("ipndm", f"{PACKAGE}.pndm:IPNDM")
    zoo.scheduler("plms", f"{PACKAGE}.pndm:PLMS")
    zoo.scheduler("pndm", f"{PACKAGE}.pndm:PNDM")
    zoo.scheduler("lcm", f"{PACKAGE}.few_step:LCM")
    zoo.scheduler("tcd", f"{PACKAGE}.few_step:TCD")
    zoo.scheduler("flow-euler", f"{PACKAGE}.flow:FlowEuler")
    zoo.scheduler("flow-heun", f"{PACKAGE}.flow:FlowHeun")
