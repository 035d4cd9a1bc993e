r"""A drift and its derivatives in x, at many states at once.

The batched adjoint asks two things of a drift: its velocity during the solve, and afterwards
$F=f$, $G=\partial_xf$, $H=\partial_{xx}f$ at all stages together with the gradient in the weights
of any $\sum(wF+cG)$. A value alone needs the slope $G$ and no more. `AutogradKernel` gets
them from autograd for any drift. `MLPKernel` writes them out for a multilayer perceptron: the same
numbers with fewer and cheaper passes over the activations; `SigmoidBasisKernel` does so for a sum
of steps. A drift chooses with a method `kernel()`.
"""

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Pullback = Callable[..., list[Tensor]]


class AutogradKernel:
    """The derivatives of any differentiable drift of states and times, `(n,)` each, by autograd."""

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor]):
        self.f = f
        self.parameters = list(f.parameters()) if isinstance(f, nn.Module) else []

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """f(x, t) without a gradient, shape `(n,)`."""
        return self.f(x, torch.tensor(t, dtype=x.dtype, device=x.device))

    def slope(self, x: Tensor, t: Tensor) -> Tensor:
        """G at states and times of shape `(N,)`, without a gradient."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (G,) = _gradient(self.f(x, t).sum(), [x])
        return G

    def derivatives(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Pullback]:
        r"""F, G, H at states and times `(N,)`, and the map from (w, c) to $\sum(wF+cG)$'s gradient.

        The map takes a third argument `n`: where the states are those of n points, `(N / n, n)`
        flat, it gives the gradient of each point's own sum, `(n, *shape of the weights)`.
        """
        needed = [p for p in self.parameters if p.requires_grad]
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            F = self.f(x, t)
            (G,) = _gradient(F.sum(), [x], create_graph=True)
            (H,) = _gradient(G.sum(), [x], retain_graph=True)

        def pullback(w: Tensor, c: Tensor, n: int | None = None) -> list[Tensor]:
            if n is not None:
                return self._of_each(x.detach(), t, w, c, n)
            with torch.enable_grad():
                surrogate = (w * F + c * G).sum()
            found = iter(_gradient(surrogate, needed))
            return [next(found) if p.requires_grad else None for p in self.parameters]

        return F.detach(), G.detach(), H, pullback

    def _of_each(self, x: Tensor, t: Tensor, w: Tensor, c: Tensor, n: int) -> list[Tensor]:
        """The pullback of each of n points, by vectorized calls of the drift for one point."""
        weights = dict(self.f.named_parameters())
        needed = {name: p.detach() for name, p in weights.items() if p.requires_grad}

        def of_one(needed, x, t, w, c):
            def total(x):
                F = functional_call(self.f, needed, (x, t))
                return F.sum(), F

            G, F = grad(total, has_aux=True)(x)
            return (w * F + c * G).sum()

        columns = [v.view(-1, n) for v in (x, t, w, c)]
        found = vmap(grad(of_one), in_dims=(None, 1, 1, 1, 1))(needed, *columns)
        return [found.get(name) for name in weights]


class MLPKernel:
    r"""The derivatives of a perceptron of (x, t) with tanh, in closed form.

    With $z_l=W_la_{l-1}+b_l$, $a_l=\tanh z_l$, a dash for $d/dx$ and $g_l=\partial F/\partial z_l$,
    one pass forward brings $a,a'$ and one pass back $g,g'$. Then $\partial F/\partial W_l=g_l
    a_{l-1}^\top$, and since differentiation in $x$ and in $W$ can be exchanged,
    $\partial G/\partial W_l=g_l'a_{l-1}^\top+g_la_{l-1}'^\top$. Autograd does not know that both
    gradients need the same $g,g'$. On the CPU $\tanh z=2\,\mathrm{sigmoid}(2z)-1$ is several times
    faster than PyTorch's tanh, so activations are computed that way.

    Args:
        net: Linear(2, ...), Tanh, ..., Linear(..., 1) with biases.

    Raises:
        ValueError: If the net is built otherwise.
    """

    def __init__(self, net: nn.Sequential):
        linears, others = list(net[::2]), list(net[1::2])
        if not (
            all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in linears)
            and all(isinstance(layer, nn.Tanh) for layer in others)
            and len(linears) == len(others) + 1 >= 2
            and (linears[0].in_features, linears[-1].out_features) == (2, 1)
        ):
            raise ValueError(
                f"MLPKernel needs Linear(2, ...), Tanh, ..., Linear(..., 1), not {net}"
            )
        self.parameters = list(net.parameters())
        self.W = [layer.weight.detach() for layer in linears]
        self.b = [layer.bias.detach() for layer in linears]
        # for `velocity`: tanh(z) = 2 sigmoid(2 z) - 1, with the constants moved into the weights
        (W_0, b_0), *middle, (W, b) = zip(self.W, self.b, strict=True)
        self.W_s = [2 * W_0.T.contiguous(), *(4 * W.T.contiguous() for W, _ in middle)]
        self.b_s = [2 * b_0, *(2 * (b - W.sum(1)) for W, b in middle)]
        self.w_last, self.b_last = 2 * W[0], b - W.sum(1)

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """f(x, t) without a gradient, shape `(n,)`."""
        at_t = torch.add(self.b_s[0], self.W_s[0][1], alpha=t)
        s = torch.addcmul(at_t, x[:, None], self.W_s[0][0]).sigmoid_()
        for W, b in zip(self.W_s[1:], self.b_s[1:], strict=True):
            s = torch.addmm(b, s, W).sigmoid_()
        return torch.addmv(self.b_last, s, self.w_last)

    def with_slope(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        r"""F and G at one time without a gradient, `(n,)` each, from one pass.

        With $s$ the sigmoid of $2z$, $\tanh'z=4s(1-s)$: the four is in the next layer's weights.
        """
        at_t = torch.add(self.b_s[0], self.W_s[0][1], alpha=t)
        s = torch.addcmul(at_t, x[:, None], self.W_s[0][0]).sigmoid_()
        ds = torch.addcmul(s, s, s, value=-1).mul_(self.W[0][:, 0])
        for W, b in zip(self.W_s[1:], self.b_s[1:], strict=True):
            s, dz = torch.addmm(b, s, W).sigmoid_(), ds @ W
            ds = torch.addcmul(s, s, s, value=-1).mul_(dz)
        return torch.addmv(self.b_last, s, self.w_last), 2 * (ds @ self.w_last)

    def derivatives(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Pullback]:
        """F, G, H and the pullback: see `AutogradKernel.derivatives`."""
        W, b, one = self.W, self.b, x.new_ones(())
        a, da, slope = [torch.stack([x, t], dim=-1)], [None], []  # of each layer a, a' and tanh'
        dz = W[0][:, 0]
        for k in range(len(W) - 1):
            a.append(torch.addmm(b[k], a[k], W[k].T).mul_(2).sigmoid_().mul_(2).sub_(1))
            slope.append(torch.addcmul(one, a[-1], a[-1], value=-1))
            if k:
                dz = da[k] @ W[k].T
            da.append(slope[-1] * dz)
        F = torch.addmv(b[-1], a[-1], W[-1][0])

        g, dg = [None] * len(slope), [None] * len(slope)
        q, dq = W[-1], None  # dF/da_l and its derivative in x
        for k in reversed(range(len(slope))):
            g[k], dg[k] = slope[k] * q, (a[k + 1] * da[k + 1]).mul_(-2).mul_(q)
            if dq is not None:
                dg[k].addcmul_(slope[k], dq)
            if k:
                q, dq = g[k] @ W[k], dg[k] @ W[k]
        G, H = da[-1] @ W[-1][0], dg[0] @ W[0][:, 0]

        def pullback(w: Tensor, c: Tensor, n: int | None = None) -> list[Tensor]:
            gradients = []
            w, c = w[:, None], c[:, None]
            for k in range(len(slope)):
                both, tangent = (dg[k] * c).addcmul_(g[k], w), g[k] * c
                gradient = _product(a[k], both, n).mT  # the other way is slow for two columns
                if k:
                    gradient += _product(tangent, da[k], n)
                else:
                    gradient[..., 0] += _sum(tangent, n)
                gradients += [gradient, _sum(both, n)]
            last = (_product(a[-1], w, n) + _product(da[-1], c, n)).mT
            return [*gradients, last, _sum(w, n)]

        return F, G, H, pullback


class SigmoidBasisKernel:
    r"""The derivatives of $f=\sum_jC_j(t)\tanh(u_j)+a(t)x+b(t)$, in closed form.

    With $u_j=k_j((x-m_j)/g_j-s_j)$, $k=e^{\mathrm{log\_k}}$. $C_j,a,b$ are sums
    $\sum_ic_{ji}\cos(\pi it)/(1+i)$, the last two rows of $c$ for $a$ and $b$; $m,g$ move on
    straight lines. All follows from $\tanh'=1-\tanh^2$, $\tanh''=-2\tanh\tanh'$ and
    $\partial_xu=k/g$. The places m and the gaps g are given at t = 0 and at t = 1, `(2, J)`; the
    shifts s and log_k are `(J,)`, c is `(J + 2, number of cosines)`.
    """

    def __init__(self, places: Tensor, gaps: Tensor, shift: Tensor, log_k: Tensor, c: Tensor):
        self.parameters = [shift, log_k, c]
        self.c, self.k = c.detach(), log_k.detach().exp()
        (self.m, m_1), (self.g, g_1) = places, gaps
        self.m_rate, self.g_rate = m_1 - self.m, g_1 - self.g
        self.moves = bool(self.m_rate.any() or self.g_rate.any())
        self.ks = self.k * shift.detach()
        self.order = torch.arange(c.shape[1], dtype=c.dtype, device=c.device)

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """f(x, t) without a gradient, shape `(n,)`."""
        return self._sigmoids(x, t)[0]

    def with_slope(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """F and G at one time without a gradient, `(n,)` each: the slope costs little beside it."""
        F, s, C_u_x, a = self._sigmoids(x, t)
        return F, torch.addmv(a, torch.addcmul(s, s, s, value=-1), C_u_x, alpha=4)

    def _sigmoids(self, x: Tensor, t: float) -> tuple[Tensor, ...]:
        """F, and for its slope: the steps as sigmoids of 2 u, C u_x, and a."""
        C, (a, b) = (self.c @ ((pi * t * self.order).cos() / (1 + self.order))).split(
            [len(self.k), 2]
        )
        u_x = self.k / torch.add(self.g, self.g_rate, alpha=t)
        m = torch.add(self.m, self.m_rate, alpha=t)
        s = torch.addcmul(-2 * torch.addcmul(self.ks, u_x, m), x[:, None], 2 * u_x).sigmoid_()
        F = torch.addmv(torch.addcmul(b - C.sum(), x, a), s, C, alpha=2)
        return F, s, C * u_x, a

    def derivatives(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Pullback]:
        """F, G, H and the pullback: see `AutogradKernel.derivatives`."""
        cosines = (pi * self.order * t[:, None]).cos() / (1 + self.order)
        C, (a, b) = cosines @ self.c[:-2].T, (cosines @ self.c[-2:].T).unbind(1)
        m, g = self.m, self.g
        if self.moves:
            m = torch.addcmul(m, t[:, None], self.m_rate)
            g = torch.addcmul(g, t[:, None], self.g_rate)
        u_x = self.k / g
        at_0 = self.ks + u_x * m
        s = torch.addcmul(-2 * at_0, x[:, None], 2 * u_x).sigmoid_().mul_(2).sub_(1)  # tanh u
        ds = torch.addcmul(x.new_ones(()), s, s, value=-1)
        C_ds, one = C * ds, torch.ones_like(self.k)
        C_s_ds = C_ds * s
        F = torch.addmv(torch.addcmul(b, a, x), C.mul_(s), one)
        G, H = a + _along_steps(C_ds, u_x), _along_steps(C_s_ds, -2 * u_x**2)

        def pullback(w: Tensor, c: Tensor, n: int | None = None) -> list[Tensor]:
            by_C = torch.addcmul(s * w[:, None], ds, c[:, None] * u_x)
            linear = torch.stack([w * x + c, w]).T
            by_c = torch.cat([_product(by_C, cosines, n), _product(linear, cosines, n)], dim=-2)
            by_u = torch.addcmul(C_ds * w[:, None], C_s_ds, c[:, None] * (-2 * u_x))
            total = _sum(by_u, n)
            if self.moves:
                u = torch.addcmul(-at_0, x[:, None], u_x)
                by_log_k = _sum(u.mul_(by_u).addcmul_(C_ds, c[:, None] * u_x), n)
            else:
                by_u_x = _product(by_u, x[:, None], n) + _product(C_ds, c[:, None], n)
                by_log_k = u_x * by_u_x[..., 0] - at_0 * total
            return [-self.k * total, by_log_k, by_c]

        return F, G, H, pullback


def _along_steps(values: Tensor, u_x: Tensor) -> Tensor:
    """The sum of the products over the steps, `(N,)`; u_x is `(J,)` where the steps stay."""
    return values @ u_x if u_x.ndim == 1 else (values * u_x).sum(1)


def _product(left: Tensor, right: Tensor, n: int | None) -> Tensor:
    """The product left^T right, over all rows, `(i, j)`, or those of each of n points, `(n, i, j)`.

    The rows are `(N / n, n)` flat.
    """
    if n is None:
        return left.T @ right
    left, right = (v.view(-1, n, v.shape[1]).transpose(0, 1) for v in (left, right))
    return left.mT @ right


def _sum(values: Tensor, n: int | None) -> Tensor:
    """The sum of all rows, or of those of each of n points, `(n, ...)`: see `_product`."""
    return values.sum(0) if n is None else values.view(-1, n, *values.shape[1:]).sum(0)


def _gradient(value: Tensor, inputs: list[Tensor], **options: bool) -> tuple[Tensor, ...]:
    """Like `torch.autograd.grad`, with zeros where the value does not depend on an input."""
    if not inputs:
        return ()
    if not value.requires_grad:
        return tuple(torch.zeros_like(v) for v in inputs)
    return torch.autograd.grad(value, inputs, materialize_grads=True, **options)
