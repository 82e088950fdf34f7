// Helpers for the files that are compiled once per instruction set.
//
// Everything here and there has internal linkage: an inline function shared between objects of different
// targets could be kept in the version of one that this CPU does not run.
#pragma once

#define PYDEC_PRAGMA(text) _Pragma(#text)

/// The next loop may be vectorised: an output is either one of the inputs, element for element, or apart from
/// all.
#if defined(__clang__)
#define PYDEC_INDEPENDENT PYDEC_PRAGMA(clang loop vectorize(assume_safety) interleave(enable))
#else
#define PYDEC_INDEPENDENT PYDEC_PRAGMA(GCC ivdep)
#endif
