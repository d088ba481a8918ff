/* A container's process that costs nothing: ends at once, or with an argument waits. */
#include <unistd.h>

int main(int argc, char **argv) {
	(void)argv;
	return argc > 1 ? pause() : 0;
}
