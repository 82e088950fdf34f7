/* The rules of one height for four validators of equal stake, one of them Byzantine, all others honest.
 *
 *     spin -a rounds.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * What was once signed can be shown to anybody at any time, so messages are the sets of what the honest have
 * signed, and the Byzantine validator is in every quorum that wants it: a quorum is two honest ones. Lost,
 * late and reordered messages are steps that are not taken. Checked: no two values are ever decided.
 *
 * Rules 3, 4, 6 and 8 of the specification; each of FORGETS_THE_LOCK, COMMITS_AFTER_TIMEOUT and
 * SKIPS_JUSTIFICATION leaves one part out and must lead to two decisions.
 */
#ifndef ROUNDS
#define ROUNDS 2
#endif

byte prepared[3 * ROUNDS];  /* value that an honest validator prepared in a round, 0 for none */
byte committed[3 * ROUNDS]; /* the same of COMMITs */
byte given_up[3 * ROUNDS];  /* 0: no TIMEOUT; else the high round that it names, plus 2 */
byte current[3];                /* current round */
byte up_to[3];              /* rounds below are given up */
bool used;                  /* something was prepared; the first value is called 1 */
byte high[3];               /* highest known prepared round plus 1, 0 for none */
bool decided[3];

#define AT(i, r) ((i) * ROUNDS + (r))
#define BOTH(a, r, v) ((a[AT(0, r)] == v) + (a[AT(1, r)] == v) + (a[AT(2, r)] == v) >= 2)
#define ENDED(r) ((given_up[AT(0, r)] > 0) + (given_up[AT(1, r)] > 0) + (given_up[AT(2, r)] > 0) >= 2)

/* Some timeout certificate of round r - 1 lets a leader propose v: two honest TIMEOUTs, the Byzantine one
 * naming whatever suits it, and the prepare certificate of the highest round named is for v. */
inline justify(r, v) {
  allowed = (r == 0);
  a = 0;
  do
  :: r > 0 && a < 3 ->
     b = (a + 1) % 3;
     if
     :: given_up[AT(a, r - 1)] && given_up[AT(b, r - 1)] ->
        named = given_up[AT(a, r - 1)];
        if
        :: given_up[AT(b, r - 1)] > named -> named = given_up[AT(b, r - 1)]
        :: else
        fi;
#ifdef SKIPS_JUSTIFICATION
        named = 1;
#endif
        allowed = allowed || named == 1;
        q = (named == 1 -> 0 : named - 2);
        do
        :: q < r ->
           allowed = allowed || BOTH(prepared, q, v);
           q++
        :: else -> break
        od
     :: else
     fi;
     a++
  :: else -> break
  od;
  a = 0; b = 0; q = 0; named = 0
}

active proctype steps() {
  byte i, r, v, a, b, q, named;
  bool allowed;
  do
  :: atomic {
       i = 0; v = 1;
       if :: i = 0 :: i = 1 :: i = 2 fi;
       if :: v = 1 :: v = 2 fi;
       r = current[i];
       if
       :: prepared[AT(i, r)] == 0 && up_to[i] <= r && (used || v == 1) -> /* rule 3 */
          d_step { justify(r, v) };
          if
          :: allowed -> prepared[AT(i, r)] = v; used = true
          :: else
          fi
#ifdef COMMITS_AFTER_TIMEOUT
       :: committed[AT(i, r)] == 0 && BOTH(prepared, r, v) -> /* rule 4 */
#else
       :: committed[AT(i, r)] == 0 && up_to[i] <= r && BOTH(prepared, r, v) -> /* rule 4 */
#endif
          d_step {
            committed[AT(i, r)] = v;
            high[i] = r + 1;
            decided[v] = decided[v] || BOTH(committed, r, v);
            assert(!(decided[1] && decided[2]))
          }
       :: BOTH(prepared, r, v) && high[i] < r + 1 -> high[i] = r + 1 /* somebody shows it the certificate */
       :: r > 0 && BOTH(prepared, r - 1, v) && high[i] < r -> high[i] = r
       :: up_to[i] <= r -> /* rule 6 */
#ifdef FORGETS_THE_LOCK
          given_up[AT(i, r)] = 1;
#else
          given_up[AT(i, r)] = high[i] + 1;
#endif
          up_to[i] = r + 1
       :: r + 1 < ROUNDS && ENDED(r) -> current[i] = r + 1 /* rule 8 */
       :: else
       fi;
       i = 0; r = 0; v = 0; allowed = false
     }
  od
}
