/* inline.h: how the frames and the kernels ask for inlining and unrolling. */
#ifndef SAF_KERNEL_FRAME_INLINE_H
#define SAF_KERNEL_FRAME_INLINE_H

/* Functions over registers, and in front of a loop of few, constant turns over registers (_WIDE: up
 * to 32 of them), and of a long loop some turns in one: its counting takes the places of arithmetic
 * (_FEW). The scalar lanes are no registers, and the compiler may choose: forced, they take
 * half a minute to compile, minutes under sanitizers, and are no faster. */
#if defined SAF__LANES_SCALAR && defined __clang__
#define SAF__INLINE static inline
#define SAF__UNROLL
#define SAF__UNROLL_WIDE
#define SAF__UNROLL_FEW
#elif defined SAF__LANES_SCALAR
#define SAF__INLINE static inline __attribute__((noclone))
#define SAF__UNROLL
#define SAF__UNROLL_WIDE
#define SAF__UNROLL_FEW
#elif defined __clang__
#define SAF__INLINE static inline __attribute__((always_inline))
#define SAF__UNROLL _Pragma("unroll")
#define SAF__UNROLL_WIDE _Pragma("unroll")
#define SAF__UNROLL_FEW _Pragma("unroll 4")
#else
#define SAF__INLINE static inline __attribute__((always_inline))
#define SAF__UNROLL _Pragma("GCC unroll 16")
#define SAF__UNROLL_FEW _Pragma("GCC unroll 4")
#define SAF__UNROLL_WIDE _Pragma("GCC unroll 32")
#endif

#endif
