/* Elementary functions over the vector type of the including file; polynomials fitted by Remez exchange. */

#define LENS_EXP_FLOOR -87.0f

/* exp(x) for LENS_EXP_FLOOR <= x <= 0 within 1 unit in the last place; 0 at the floor itself.
 * x = n log 2 + r with |r| <= log(2) / 2; adding 1.5 * 2^23 rounds n into the low bits of the sum. */
static inline vec exp_nonpositive(vec x) {
    vec magic = v_set(12582912.0f);
    vec shifted = v_fma(x, v_set(1.44269504f), magic);
    vec n = v_sub(shifted, magic);
    vec r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(0.000212194440f), r);
    vec p = v_set(0.001381446706f);
    p = v_fma(p, r, v_set(0.008368780411f));
    p = v_fma(p, r, v_set(0.04166839421f));
    p = v_fma(p, r, v_set(0.1666652011f));
    p = v_fma(p, r, v_set(0.4999999341f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_zero_unless_greater(v_scale_by_power(p, shifted), x, v_set(LENS_EXP_FLOOR));
}

/* -log((1 + z) / 2) for 0 <= z <= 1, exactly 0 at z = 1; absolute error 1e-7. */
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
    vec z = exp_nonpositive(v_max(v_set(LENS_EXP_FLOOR), v_mul(a, v_set(-2.0f))));
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
