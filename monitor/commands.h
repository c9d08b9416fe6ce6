/* The subcommands of ring3: each parses its own argv (argv[0] is its name) and returns the exit status. A new
 * one is declared here or in its module's header, and listed in main.c. */
#ifndef RING3_COMMANDS_H
#define RING3_COMMANDS_H

int run_main(int argc, char **argv);       /* cmd_run.c */
int step_main(int argc, char **argv);      /* cmd_step.c */
int trace_main(int argc, char **argv);     /* cmd_trace.c */
int translate_main(int argc, char **argv); /* cmd_translate.c */
int doctor_main(int argc, char **argv);    /* cmd_doctor.c */

#endif
