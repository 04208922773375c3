/* What a program does to its environment and to its files before statistics are written at its exit:
 * the first argument. */

#include <fcntl.h>

#include "check.h"

static void close_stderr(void) {
    if (fclose(stderr) != 0) {
        _exit(1);
    }
}

/* Makes the file every file but the first two, wherever a copy of standard error was. */
static void open_data_as_stderr(const char *path) {
    for (int file = 2; file < 1000; file++) {
        close(file);
    }
    for (int file = 2; file < 200; file++) {
        CHECK(open(path, O_RDWR) == file);
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    use_all_kinds(1);
    if (strcmp(mode, "clearenv") == 0) {
        clearenv();
    } else if (strcmp(mode, "overwrite") == 0) {
        /* As programs do that show a title of their own. */
        extern char **environ;
        for (char **entry = environ; *entry != NULL; entry++) {
            memset(*entry, 'x', strlen(*entry));
        }
    } else if (strcmp(mode, "close") == 0) {
        atexit(close_stderr);
    } else if (strcmp(mode, "data") == 0) {
        open_data_as_stderr(argv[2]);
    } else {
        return 2;
    }
    return end_of_checks();
}
