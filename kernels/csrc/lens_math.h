/* Elementary functions over the vector type of the including file; polynomials fitted by Remez exchange. */

/* exp(x) for x <= 80: relative error 1.2e-7 + 3e-9 |x| (2.5e-7 without fused multiply-add) from -86 on,
 * less than 1e-37 or 0 further down.
 * x = n log 2 + r with |r| <= log(2) / 2. */
static inline vec exp_any(vec x) {
    x = v_max(v_set(-104.0f), x); /* keeps a NaN */
    vec n = v_round(v_mul(x, v_set(1.44269504f)));
    vec r = v_less_log2(x, n);
    vec p = v_set(0.001381446706f);
    p = v_fma(p, r, v_set(0.008368780411f));
    p = v_fma(p, r, v_set(0.04166839421f));
    p = v_fma(p, r, v_set(0.1666652011f));
    p = v_fma(p, r, v_set(0.4999999341f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_scale(p, n);
}

/* -log((1 + z) / 2) for 0 <= z <= 1, exactly 0 at z = 1; absolute error 1.5e-7. */
static inline vec neg_log_half_sum(vec z) {
    vec y = v_sub(v_set(1.0f), z);
    vec p = v_set(0.003780488562f);
    p = v_fma(p, y, v_set(-0.01084285457f));
    p = v_fma(p, y, v_set(0.01746008863f));
    p = v_fma(p, y, v_set(-0.01057503977f));
    p = v_fma(p, y, v_set(0.01255595138f));
    p = v_fma(p, y, v_set(0.01384114182f));
    p = v_fma(p, y, v_set(0.04194849029f));
    p = v_fma(p, y, v_set(0.1249783385f));
    p = v_fma(p, y, v_set(0.500000571f));
    return v_mul(p, y);
}

/* tanh(x) within 3 units in the last place: a polynomial near 0, where 1 - exp(-2 |x|) would lose digits. */
static inline vec tanh_any(vec x) {
    vec a = v_abs(x);
    vec z = exp_any(v_mul(a, v_set(-2.0f)));
    vec far = v_div(v_sub(v_set(1.0f), z), v_add(v_set(1.0f), z));
    vec s = v_mul(x, x);
    vec p = v_set(-0.006580766677f);
    p = v_fma(p, s, v_set(0.02126109335f));
    p = v_fma(p, s, v_set(-0.05389226402f));
    p = v_fma(p, s, v_set(0.1333291404f));
    p = v_fma(p, s, v_set(-0.3333332578f));
    vec near = v_fma(v_mul(p, s), x, x);
    return v_where_greater(a, v_set(0.5f), v_copy_sign(far, x), near);
}
