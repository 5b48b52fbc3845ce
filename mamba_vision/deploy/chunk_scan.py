"""Lines of an ONNX function for h_l = a_l h_(l-1) + x_l along sequences, where all decays are known before.

The sequence is cut into P parts of S steps, about as many as the parts are long: a short scan goes through all parts
side by side, from zero states, another one through the parts, and what enters a part is added to its steps. The lines
want zero, one, zero_index and one_index.
"""


def cut(length: str) -> list[str]:
    """steps_SP: which of the `length` steps is where; behind the end any will do, as nothing comes after it."""
    return [
        f"length_float = Cast <to = 1> ({length})",
        "root = Sqrt(length_float)",
        "S_float = Ceil(root)",
        "S = Cast <to = 7> (S_float)",
        f"final = Sub({length}, one)",
        "longer = Add(final, S)",
        "P = Div(longer, S)",
        "S_index = Squeeze(S, zero)",
        "P_index = Squeeze(P, zero)",
        "within_S = Range(zero_index, S_index, one_index)",
        "part_P = Range(zero_index, P_index, one_index)",
        "begins_P = Mul(part_P, S)",
        "within_S1 = Unsqueeze(within_S, one)",
        "past_SP = Add(within_S1, begins_P)",
        "steps_SP = Min(past_SP, final)",
    ]


def run(decays: str, added: str, sides: str) -> list[str]:
    """h_all (S, P, *sides) from decays and what is added, of the same shape."""
    # no names for sizes: ONNX Runtime takes those of all scans of a model for one and the same
    state = ", ".join("?" for _ in sides.split(","))
    return [
        f"state_sides = Concat <axis = 0> ({sides})",
        "part_sides = Concat <axis = 0> (P, state_sides)",
        "nothing = ConstantOfShape <value = float[1] {0.0}> (part_sides)",
        "whole = ConstantOfShape <value = float[1] {1.0}> (part_sides)",
        f"""h_end, p_end, h_parts, p_parts = Scan <num_scan_inputs = 2, body = step
(float[?, {state}] h, float[?, {state}] p, float[?, {state}] at, float[?, {state}] xt)
=> (float[?, {state}] new, float[?, {state}] left, float[?, {state}] ht, float[?, {state}] pt)
{{
    kept = Mul(at, h)
    new = Add(kept, xt)
    left = Mul(at, p)
    ht = Identity(new)
    pt = Identity(left)
}}> (nothing, whole, {decays}, {added})""",
        "start = ConstantOfShape <value = float[1] {0.0}> (state_sides)",
        f"""last, entering = Scan <num_scan_inputs = 2, body = carry
(float[{state}] c, float[{state}] pk, float[{state}] hk) => (float[{state}] next, float[{state}] before)
{{
    before = Identity(c)
    carried = Mul(pk, c)
    next = Add(carried, hk)
}}> (start, p_end, h_end)""",
        "brought = Mul(p_parts, entering)",
        "h_all = Add(h_parts, brought)",
    ]


def place(steps: str) -> list[str]:
    """place: where in (S, P) each of these steps is."""
    return [
        f"part_of = Div({steps}, S)",
        "begin_of = Mul(part_of, S)",
        f"within_of = Sub({steps}, begin_of)",
        "row_of = Mul(within_of, P)",
        "place = Add(row_of, part_of)",
    ]
