"""What a mixer would scan with: read by hidden attention and by analyses, so that none of them forks a mixer."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ScanInputs:
    """The K scans of one mixer, every sequence in the order in which its scan reads it.

    Legend: B batch, K scans, E channels, N states, L steps.

    Attributes:
        u: (B, K, E, L) input of the recurrence, after convolution and activation.
        delta: (B, K, E, L) step sizes, after bias and softplus, float32.
        A: (K, E, N) negative rates, float32.
        B, C: (B, K, N, L) input and output vectors.
        D: (K, E) skip.
        z: (B, K, E, L) gate before its SiLU, or None.
        order: (K, L) int64; scan k reads token order[k, i] at step i. None: as the tokens come.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor | None = None
    order: Tensor | None = None
