import numpy as np

from rekv.world.light import DAY, lamps, light

NOON, DUSK, NIGHT = 12 * 60, 19 * 60, 60


def test_it_is_never_so_dark_or_bright_that_colours_are_lost() -> None:
    factors = light(range(DAY))
    assert factors.shape == (DAY, 3)
    brightness = factors.mean(1)
    assert 0.55 < brightness.min() < 0.7
    assert 1.0 < brightness.max() < 1.12


def test_days_are_bright_dusk_is_warm_and_nights_are_dim_and_blue() -> None:
    (noon_red, _, noon_blue), (dusk_red, _, dusk_blue), (night_red, _, night_blue) = light([NOON, DUSK, NIGHT])
    assert abs(noon_red - noon_blue) < 0.1
    assert dusk_red > 1.2 * dusk_blue
    assert night_blue > 1.2 * night_red
    assert light([NIGHT]).mean() < 0.7 * light([NOON]).mean()


def test_it_changes_slowly_also_at_midnight() -> None:
    factors = light([*range(DAY), 0])
    assert np.abs(np.diff(factors, axis=0)).max() < 0.03
    assert np.ptp(light(range(NOON, NOON + 60)).mean(1)) > 0.02, "but it does"


def test_lamps_shine_at_night_only() -> None:
    assert lamps([NOON, NIGHT]).tolist() == [0, 1]
    assert np.abs(np.diff(lamps([*range(DAY), 0]))).max() < 0.03
