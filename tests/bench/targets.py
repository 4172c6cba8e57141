"""What is asked of each case. A number is a ratio within one run."""

LARGE = "mlp 784-100-784, batch 512"

# By case. forward, gradient: diffrax over ndekit, at least. The rest at most: floor, forward over a
# scan of as many evaluations, or forward and gradient over a solve written by hand;
# gradient_per_forward; saves, a solve with values at 100 times over one with the last value alone;
# costs, a solve with three costs over one without.
# memory_per_save: states for each saved value, besides those that every gradient may take;
# beside_the_best: gradient of diffrax with the best buffer over ours, at least.
TARGETS: dict[str, dict[str, float]] = {
    "lorenz, 4096 lanes": dict(forward=5, gradient=10, gradient_per_forward=3.6, costs=1.25),
    "lorenz, 256 lanes": dict(forward=5, gradient=8, costs=1.25),
    "lorenz, single": dict(forward=1.5, gradient=6, costs=1.25),
    "mlp 2-64-64-2, single": dict(forward=1.5, gradient=3, costs=1.05),
    "mlp 2-64-64-2, 256 lanes": dict(forward=1, gradient=3, floor=1.5, costs=1.05),
    "mlp 2-64-64-2, single, 100 saves": dict(forward=1, gradient=3, saves=1.25, costs=1.05),
    LARGE: dict(forward=1, floor=1.15, gradient_per_forward=3.6, beside_the_best=1.5, costs=1.05),
    "robertson, Kvaerno5": dict(forward=1, gradient=2.5),
    "van der pol 1000, Kvaerno5": dict(forward=1, gradient=2.5),
    "neural cde, Heun on the grid": dict(forward=1, gradient=3),
    "neural cde, Tsit5 adaptive": dict(forward=1, gradient=3),
    "sde, Euler, 50 steps": dict(forward=15, gradient=12, floor=1.3),
    "sde, Euler, 1000 steps": dict(forward=15, gradient=12, floor=1.3),
    "sde, Heun adaptive": dict(forward=10, gradient=5),
    "sde, Heun adaptive, 100 saves": dict(forward=1, gradient=2, memory_per_save=4),
    "sde, Heun adaptive, 100 saves on the bridge": dict(forward=1, gradient=2, memory_per_save=7),
    "sde, SPaRK adaptive": dict(forward=10, gradient=5),
}
# Of all cases: trace + compile of forward and gradient, ndekit over diffrax.
COMPILE = 0.4


def has_floor(name: str) -> bool:
    """Whether a scan of evaluations of the field is a floor: not beside equations to be solved."""
    return name.startswith(("lorenz", "mlp", "sde, Euler"))


def in_float64(name: str) -> bool:
    return name.endswith("Kvaerno5")
