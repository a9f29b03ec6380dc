/* saf/core_signals.h: signals to a program that may be told to stop.
 *
 * A thread of its own takes USR1, TERM, INT and HUP, which every other thread blocks: no call is
 * ever interrupted by one, no handler runs, and none ends the process by itself.
 *
 *   USR1              asks for a stop at the next good moment; repeats change nothing
 *   TERM, INT, HUP    the first one ends the process now: whoever asked to be told saves what it
 *                     can, for as long as it was granted
 *   the second        ends it at once
 *
 * Local. Any thread.
 */
#ifndef SAF_CORE_SIGNALS_H
#define SAF_CORE_SIGNALS_H

#include <signal.h>

#include "saf/core.h"

/* Blocks these signals for the calling thread and all that it starts from now on, children that it
 * executes included. Those that come are kept for the thread that takes them. Safe before anything
 * else of a process has begun. */
void saf_signals_block(void);
/* Blocks them, and starts the thread that takes them. Once per process, before threads are started
 * by anything else. Errors: NO_MEMORY (no thread). */
saf_status saf_signals_start(void);

bool saf_signals_stop_asked(void); /* USR1 has come */
void saf_signals_ask_stop(void);   /* as if it had */

/* From now on `told` is called, by the thread that takes the signals, when the process is to end
 * now; it must not wait. The process ends grace_s later with the exit code of
 * saf_signals_exit_code, if it has not ended by itself. NULL, as at first: the process ends at
 * once. When this returns, the function that was there before is not running any more and will not
 * be called. */
typedef void saf_signals_told(void *ctx, const char *name /* "SIGTERM" */);
void saf_signals_tell(saf_signals_told *told, void *ctx, double grace_s);
/* What a process that ends by a signal exits with; 1 at first. */
void saf_signals_exit_code(int code);
/* Something is said when the process ends at once: it is not one of several that a launcher ends.
 */
void saf_signals_speak(void);

/* Lets these signals through again, in the mask that a child of posix_spawn is to have. */
void saf_signals_for_child(sigset_t *mask);

#endif
