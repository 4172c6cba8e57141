"""Log densities of flows with an MLP as field, by SciPy in float64 at a hundred thousandth of a
float32 solve's tolerance.
"""

import numpy as np
import scipy.integrate
import scipy.stats


def by_scipy(flow, x, directions=None):
    """The log density at one point by eighth order Runge-Kutta at 1e-10.

    The Jacobian is written out by hand. With `directions`, `(number, d)`, its trace is replaced by
    the sum of v J v over them.
    """
    weights = [np.asarray(layer.weight, np.float64) for layer in flow.field.layers]
    biases = [np.asarray(layer.bias, np.float64) for layer in flow.field.layers]
    times = [layer.time_weight for layer in flow.field.layers]
    size = len(x)
    directions = np.eye(size) if directions is None else np.asarray(directions, np.float64)

    def rate(t, y):
        h, jacobian = y[:size], np.eye(size)
        for i, (w, b, of_time) in enumerate(zip(weights, biases, times, strict=True)):
            h, jacobian = h @ w + b, jacobian @ w
            if of_time is not None:
                h = h + t * np.asarray(of_time, np.float64)
            if i < len(weights) - 1:
                h = np.tanh(h)
                jacobian = jacobian * (1 - h**2)
        return np.array([*h, np.sum(directions * (directions @ jacobian))])

    sol = scipy.integrate.solve_ivp(rate, (1, 0), [*x, 0.0], "DOP853", rtol=1e-10, atol=1e-12)
    noise, trace = sol.y[:-1, -1], sol.y[-1, -1]
    return scipy.stats.multivariate_normal(np.zeros(size)).logpdf(noise) + trace
