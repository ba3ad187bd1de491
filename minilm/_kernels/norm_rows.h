/* One row of layer_norm or rms_norm, alone or of a sum with a residual: forward and backward.
 *
 * Included once per type, with REAL and NAME(x) defined.  Without ``centred`` the mean and the shift are left out, which
 * makes rms_norm.  A row, of C numbers, is read from memory once, in order; its other passes find it in the cache.  Sums
 * along it run in PARTS vectors at once, which hides the time that one addition takes, and go into a double after every
 * BLOCK numbers, so that long rows stay exact.  ``whole`` rows fill their vectors: the compiler drops what is for others.
 * The last pass of a row asks for the next one, and for the lines that this will be written to.
 *
 * Vectors are GCC's and Clang's extension; other compilers get vectors of one element.  With 64 bytes they would be
 * slower: NumPy aligns arrays to 16, and then every load takes from two cache lines.
 */
#if defined(__AVX__)
#define VECTOR 32
#else
#define VECTOR 16
#endif

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define AHEAD(p, write) \
    if (c * sizeof(REAL) % 64 == 0) __builtin_prefetch((p) + C + c, write) /* a line of the next row */
#else
typedef REAL NAME(vec);
#define INLINE static inline
#define AHEAD(p, write)
#endif
#define LANES ((long)(sizeof(NAME(vec)) / sizeof(REAL)))
#define PARTS 4
#define STEP (PARTS * LANES)
#define BLOCK (64 * STEP)

/* Bodies use c, where they are in the row, REST, what is left of it there, and p, the part that they add to. */
#define REST (whole ? LANES : C - c)
#define EACH_BLOCK for (long begin = 0, end; end = begin + BLOCK < C ? begin + BLOCK : C, begin < C; begin = end)
#define EACH_PART \
    for (long step = begin; step < end; step += STEP) \
        for (long p = 0, c = step; p < PARTS; p++, c += LANES) \
            if (whole || c < end)
#define EACH_VECTOR for (long c = 0; c < C; c += LANES)
/* f, where ``whole`` and ``centred`` are constants. */
#define EACH_KIND(f, ...) \
    if (C % STEP == 0) \
        if (centred) f(1, 1, __VA_ARGS__); \
        else f(1, 0, __VA_ARGS__); \
    else if (centred) f(0, 1, __VA_ARGS__); \
    else f(0, 0, __VA_ARGS__);

/* n numbers, at most a vector of them; the places beyond hold ``fill``. */
INLINE NAME(vec) NAME(load)(const REAL *p, long n, REAL fill) {
    NAME(vec) v;
    if (n >= LANES) return *(const NAME(vec) *)p;
    for (long l = 0; l < LANES; l++) ((REAL *)&v)[l] = l < n ? p[l] : fill;
    return v;
}

INLINE void NAME(store)(REAL *p, long n, NAME(vec) v) {
    if (n >= LANES) *(NAME(vec) *)p = v;
    else for (long l = 0; l < n; l++) p[l] = ((const REAL *)&v)[l];
}

INLINE double NAME(total)(const NAME(vec) *sum) {
    NAME(vec) v = sum[0];
    double lanes[sizeof(NAME(vec)) / sizeof(REAL)];
    for (int p = 1; p < PARTS; p++) v += sum[p];
    for (long l = 0; l < LANES; l++) lanes[l] = ((const REAL *)&v)[l];
    for (long half = LANES / 2; half; half /= 2)
        for (long l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

INLINE void NAME(forward_of)(const int whole, const int centred, long C, const REAL *x, const REAL *y, const REAL *w,
                             const REAL *b, double eps, REAL *s, REAL *n, REAL *mean, REAL *rstd) {
    const REAL *const in = y ? s : x, *const also = y ? y : x;
    REAL *const sums = y ? s : n; /* the same line twice costs less than a choice */
    double total = 0;
    REAL mu = 0, r;
    if (centred) {
        EACH_BLOCK {
            NAME(vec) sum[PARTS] = {0};
            EACH_PART {
                NAME(vec) v = NAME(load)(x + c, REST, 0);
                if (y) NAME(store)(s + c, REST, v += NAME(load)(y + c, REST, 0));
                sum[p] += v;
            }
            total += NAME(total)(sum);
        }
        *mean = mu = (REAL)(total / C);
        total = 0;
    } else if (y)
        EACH_VECTOR NAME(store)(s + c, REST, NAME(load)(x + c, REST, 0) + NAME(load)(y + c, REST, 0));
    EACH_BLOCK {
        NAME(vec) sum[PARTS] = {0};
        EACH_PART {
            const NAME(vec) v = NAME(load)(in + c, REST, mu) - mu;
            sum[p] += v * v;
        }
        total += NAME(total)(sum);
    }
    *rstd = r = (REAL)(1 / sqrt(total / C + eps));
    EACH_VECTOR {
        AHEAD(x, 0);
        AHEAD(also, 0);
        AHEAD(sums, 1);
        AHEAD(n, 1);
        NAME(vec) v = (NAME(load)(in + c, REST, 0) - mu) * r * NAME(load)(w + c, REST, 0);
        if (centred) v += NAME(load)(b + c, REST, 0);
        NAME(store)(n + c, REST, v);
    }
}

INLINE void NAME(backward_of)(const int whole, const int centred, long C, const REAL *ds, const REAL *dn,
                              const REAL *s, const REAL *w, REAL mu, REAL r, REAL *dx, REAL *dw, REAL *db) {
    double total_g = 0, total_gn = 0;
    EACH_BLOCK {
        NAME(vec) sum_g[PARTS] = {0}, sum_gn[PARTS] = {0};
        EACH_PART {
            const NAME(vec) g = NAME(load)(dn + c, REST, 0) * NAME(load)(w + c, REST, 0);
            sum_gn[p] += g * (NAME(load)(s + c, REST, 0) - mu);
            if (centred) sum_g[p] += g;
        }
        total_g += NAME(total)(sum_g);
        total_gn += NAME(total)(sum_gn) * r;
    }
    const REAL *const along = ds ? ds : dn;
    const REAL mean_g = (REAL)(total_g / C), mean_gn = (REAL)(total_gn / C);
    EACH_VECTOR {
        AHEAD(along, 0);
        AHEAD(dn, 0);
        AHEAD(s, 0);
        AHEAD(dx, 1);
        const NAME(vec) d = NAME(load)(dn + c, REST, 0), n = (NAME(load)(s + c, REST, 0) - mu) * r;
        const NAME(vec) g = d * NAME(load)(w + c, REST, 0) + 0; /* + 0: rounded before <g> is taken away from it */
        NAME(vec) v = r * (g - mean_g - n * mean_gn);
        if (ds) v += NAME(load)(ds + c, REST, 0);
        NAME(store)(dx + c, REST, v);
        NAME(store)(dw + c, REST, NAME(load)(dw + c, REST, 0) + d * n);
        if (centred) NAME(store)(db + c, REST, NAME(load)(db + c, REST, 0) + d);
    }
}

/* n = (s - mean) rstd w + b, where s = x + y is written too, or, where y is NULL, is x. */
static void NAME(forward)(int centred, long C, const REAL *x, const REAL *y, const REAL *w, const REAL *b, double eps,
                          REAL *s, REAL *n, REAL *mean, REAL *rstd) {
    EACH_KIND(NAME(forward_of), C, x, y, w, b, eps, s, n, mean, rstd)
}

/* dx = rstd (g - <g> - n <g n>) + ds with g = dn w, where ds may be NULL; dn n is added to dw, and dn to db. */
static void NAME(backward)(int centred, long C, const REAL *ds, const REAL *dn, const REAL *s, const REAL *w, REAL mean,
                           REAL rstd, REAL *dx, REAL *dw, REAL *db) {
    EACH_KIND(NAME(backward_of), C, ds, dn, s, w, mean, rstd, dx, dw, db)
}

#undef EACH_KIND
#undef AHEAD
#undef EACH_VECTOR
#undef EACH_PART
#undef EACH_BLOCK
#undef REST
#undef BLOCK
#undef STEP
#undef PARTS
#undef LANES
#undef INLINE
#undef VECTOR
