/* exp, log, tanh and erf of one float, written so that a C compiler vectorises a loop that calls them.
 *
 * libm's versions are function calls with branches, which no compiler vectorises without -ffast-math, and fast-math
 * takes away inf and NaN.  These have no branch and no table; every special case is a select.  They need
 * -O3 -fno-math-errno -fno-trapping-math and nothing else.  The polynomials are minimax fits (Lawson's algorithm, the
 * coefficients then rounded to float one by one).  The largest errors over every float, denormals included, in units in
 * the last place of the exact result, with and without fused multiply-add:
 *
 *     vm_expf   1.02        vm_logf   0.91        vm_tanhf   1.34        vm_erff   1.17
 *
 * The versions for double are libm's: correct before fast, since double is for checking.
 */
#ifndef MINILM_VECMATH_H
#define MINILM_VECMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float vm_from_bits(int32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int32_t vm_to_bits(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* |x| with the sign of y.  gcc 12 does not vectorise a copysignf that it has moved under a condition. */
static inline float vm_sign(float x, float y) {
    return vm_from_bits((vm_to_bits(x) & 0x7fffffff) | (vm_to_bits(y) & (int32_t)0x80000000));
}

/* |x| < limit ? small : large, without the branch that gcc 12 would make of that. */
static inline float vm_by_size(float x, float limit, float small, float large) {
    const int32_t mask = ((vm_to_bits(x) & 0x7fffffff) - vm_to_bits(limit)) >> 31;
    return vm_from_bits((vm_to_bits(small) & mask) | (vm_to_bits(large) & ~mask));
}

/* The smaller of |x| and limit; the bits of NaN are larger than those of any limit. */
static inline float vm_clamp(float x, float limit) {
    const int32_t size = vm_to_bits(x) & 0x7fffffff, most = vm_to_bits(limit);
    return vm_from_bits(size < most ? size : most);
}

/* x, or NaN where y is NaN. */
static inline float vm_nan_of(float x, float y) {
    return vm_from_bits(vm_to_bits(x) | ((0x7f800000 - (vm_to_bits(y) & 0x7fffffff)) >> 31));
}

/* The nearest integer of a small x.  Truncation is one instruction on every x86-64; rint only since SSE4.1. */
static inline int32_t vm_nearest(float x) { return (int32_t)(x + vm_sign(0.5f, x)); }

/* e^x = 2^n e^r with n the integer nearest to x / ln 2.  2^n goes in as two factors, so that the result may be
 * denormal, and is rounded once; beyond +-104 they give inf and 0.  The clamp and NaN are done on the bits: a choice
 * between floats would become a branch. */
static inline float vm_expf(float x) {
    const float c = vm_sign(vm_clamp(x, 104.0f), x);
    const int32_t n = vm_nearest(c * 1.44269504088896341f), half = n >> 1;
    const float r = (c - (float)n * 0.693359375f) - (float)n * -2.12194440e-4f; /* ln 2 in two parts, the first exact */
    float p = 0.0013820136664435267f;
    p = p * r + 0.008368685841560364f;
    p = p * r + 0.04166827350854874f;
    p = p * r + 0.1666652113199234f;
    p = p * r + 0.4999999403953552f;
    p = p * (r * r) + r + 1.0f;
    p = p * vm_from_bits((half + 127) << 23) * vm_from_bits((n - half + 127) << 23);
    return vm_nan_of(p, x);
}

/* The same for a softmax, where x <= 88 and most x are below 0: 2^n is one factor, and what would be below e^-87, all but
 * denormal, is 0.  So a hidden score of -inf costs what any other does, while denormal products are slow. */
static inline float vm_decayf(float x) {
    const float far = x * 1.44269504088896341f + 12582912.0f, n = far - 12582912.0f; /* 1.5 2^23: n in its last bits */
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 0.0013820136664435267f;
    p = p * r + 0.008368685841560364f;
    p = p * r + 0.04166827350854874f;
    p = p * r + 0.1666652113199234f;
    p = p * r + 0.4999999403953552f;
    p = p * (r * r) + r + 1.0f;
    p = p * vm_from_bits((int32_t)(((uint32_t)vm_to_bits(far) << 23) + (127u << 23)));
    return vm_from_bits(vm_to_bits(p) & (x < -87.0f ? 0 : -1)); /* on the bits: not a branch */
}

/* ln x = e ln 2 + ln(1 + f), x = 2^e (1 + f) with 1 + f in [√½, √2). */
static inline float vm_logf(float x) {
    const int32_t sqrt_half = 0x3f3504f3;
    const int denormal = x < 1.17549435e-38f;
    const int32_t bits = vm_to_bits(denormal ? x * 8388608.0f : x) - sqrt_half;
    const float e = (float)((bits >> 23) - (denormal ? 23 : 0));
    const float f = vm_from_bits((bits & 0x7fffff) + sqrt_half) - 1.0f, s = f * f;
    float p = -0.0763750746846199f;
    p = p * f + 0.1276441067457199f;
    p = p * f + -0.13160263001918793f;
    p = p * f + 0.14201320707798004f;
    p = p * f + -0.1662331372499466f;
    p = p * f + 0.20001249015331268f;
    p = p * f + -0.250008225440979f;
    p = p * f + 0.3333333134651184f;
    p = (p * f * s - 0.5f * s + e * -2.12194440e-4f) + f + e * 0.693359375f;
    p = x < INFINITY ? p : x; /* inf and NaN */
    p = x == 0.0f ? -INFINITY : p;
    return x < 0.0f ? NAN : p;
}

/* An odd polynomial near 0, 1 - 2 / (e^2|x| + 1) further out. */
static inline float vm_tanhf(float x) {
    const float a = fabsf(x), s = x * x;
    const float far = 1.0f - 2.0f / (vm_expf(2.0f * a) + 1.0f);
    float p = -0.0056963227689266205f;
    p = p * s + 0.02063089795410633f;
    p = p * s + -0.05373706296086311f;
    p = p * s + 0.1333140879869461f;
    p = p * s + -0.3333328068256378f;
    p = p * s * x + x;
    return vm_sign(vm_by_size(x, 0.625f, p, far), x);
}

/* An odd polynomial near 0, 1 - e^q(|x|) further out, where q is a fit of ln erfc. */
static inline float vm_erff(float x) {
    const float b = vm_clamp(x, 4.0f), s = x * x;
    float p = 8.002774848137051e-05f, q = -1.0429015674162656e-05f;
    p = p * s + -0.0008050804024884885f;
    p = p * s + 0.0051924604922533035f;
    p = p * s + -0.026855740696191788f;
    p = p * s + 0.11283625662326813f;
    p = p * s + -0.3761262893676758f;
    p = p * s + 0.12837916612625122f;
    p = p * x + x;
    q = q * b + 0.0003148278337903321f;
    q = q * b + -0.0036102544981986284f;
    q = q * b + 0.023694442585110664f;
    q = q * b + -0.10615896433591843f;
    q = q * b + -0.6351980566978455f;
    q = q * b + -1.1286370754241943f;
    return vm_nan_of(vm_sign(vm_by_size(x, 0.92f, p, 1.0f - vm_expf(q * b)), x), x);
}

/* The smaller of a and limit; NaN stays NaN. */
static inline float vm_leastf(float a, float limit) { return a > limit ? limit : a; }
static inline double vm_least(double a, double limit) { return a > limit ? limit : a; }

/* 2^t for -127.4 <= t <= 0, or NaN, and nothing else: no special case is left.  Below -126.5 the result is 0.  Errors of
 * at most 1.23 units in the last place, 0.95 with fused multiply-add. */
static inline float vm_exp2_downf(float t) {
    const int32_t biased = (int32_t)(t + 127.5f); /* the nearest integer to t, plus 127; truncated from above 0 */
    const float f = t - (float)(biased - 127);
    float p = 0.00015353341586887836f;
    p = p * f + 0.0013398900628089905f;
    p = p * f + 0.009618437848985195f;
    p = p * f + 0.055503323674201965f;
    p = p * f + 0.24022647738456726f;
    p = p * f + 0.6931471824645996f;
    p = p * f + 1.0f;
    return p * vm_from_bits(biased << 23);
}

/* The probability that a standard normal number is above a, 0 <= a <= 13.27, given e = exp(-a^2/2): e p(a) / q(a).  No
 * coefficient is negative, so nothing cancels.  Relative error, beside that of e, at most 4.9e-7, 3.4e-7 with fused
 * multiply-add; the fit's own is 5e-9. */
static inline float vm_normal_tailf(float a, float e) {
    float p = 0.004017623141407967f, q = 0.010070543736219406f;
    p = p * a + 0.03996676579117775f;
    q = q * a + 0.10018923133611679f;
    p = p * a + 0.18125492334365845f;
    q = q * a + 0.4642435312271118f;
    p = p * a + 0.43561598658561707f;
    q = q * a + 1.1942683458328247f;
    p = p * a + 0.5f;
    q = q * a + 1.6691168546676636f;
    return e * p / (q * a + 1.0f);
}

static inline double vm_exp(double x) { return exp(x); }
static inline double vm_exp2_down(double t) { return exp2(t); }
static inline double vm_decay(double x) { return exp(x); }
static inline double vm_log(double x) { return log(x); }
static inline double vm_tanh(double x) { return tanh(x); }
static inline double vm_erf(double x) { return erf(x); }
static inline double vm_normal_tail(double a, double e) { (void)e; return 0.5 * erfc(a * 0.70710678118654752440); }

#endif
