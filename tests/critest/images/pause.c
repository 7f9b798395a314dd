/* The program of the pause image: holds a pod's namespaces, reaps what is orphaned in them, and ends when told to. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signal)
{
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static void end(int signal)
{
	(void)signal;
	_exit(0);
}

int main(void)
{
	struct sigaction child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
	struct sigaction stop = {.sa_handler = end};

	sigaction(SIGCHLD, &child, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	for (;;)
		pause();
}
