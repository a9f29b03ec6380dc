/* inline.h: how the frames and the kernels ask for inlining and unrolling. */
#ifndef SAF_KERNEL_FRAME_INLINE_H
#define SAF_KERNEL_FRAME_INLINE_H

/* Functions over registers, and in front of a loop of few, constant turns over registers. The
 * scalar lanes are no registers, and the compiler may choose: forced, they take half a minute to
 * compile, minutes under sanitizers, and are no faster. */
#if defined SAF__LANES_SCALAR && defined __clang__
#define SAF__INLINE static inline
#define SAF__UNROLL
#elif defined SAF__LANES_SCALAR
#define SAF__INLINE static inline __attribute__((noclone))
#define SAF__UNROLL
#elif defined __clang__
#define SAF__INLINE static inline __attribute__((always_inline))
#define SAF__UNROLL _Pragma("unroll")
#else
#define SAF__INLINE static inline __attribute__((always_inline))
#define SAF__UNROLL _Pragma("GCC unroll 16")
#endif

#endif
