/* What OpenMP answers; where the compiler has none, there is one thread. */
#ifndef MINILM_OPENMP_H
#define MINILM_OPENMP_H

#if defined(_OPENMP)
#include <omp.h>
#else
static inline int omp_get_max_threads(void) { return 1; }
static inline void omp_set_num_threads(int n) { (void)n; }
#endif

#endif
