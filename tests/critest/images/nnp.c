/* What the image nonewprivs runs: installed setuid root, it says whether that took effect. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", (int)geteuid());
	return 0;
}
