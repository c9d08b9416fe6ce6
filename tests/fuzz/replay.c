/* Feeds a target every file of the folders named on the command line, in the order of their names. */
#include <dirent.h>
#include <string.h>

#include "fuzz.h"
#include "monitor/file.h"

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay(const char *folder, const char *name)
{
    char path[4096], error[4200];
    struct file_bytes file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!file_read(path, &file, error, sizeof error)) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    printf("%s\n", path);
    fflush(stdout); /* before what may be its end */
    LLVMFuzzerTestOneInput(file.bytes, file.size);
    file_free(&file);
}

int main(int argc, char **argv)
{
    int n_files = 0;

    for (int i = 1; i < argc; i++) {
        struct dirent **entries;
        int n = scandir(argv[i], &entries, is_visible, alphasort);

        if (n < 0) {
            perror(argv[i]);
            return 1;
        }
        for (int k = 0; k < n; k++) {
            replay(argv[i], entries[k]->d_name);
            free(entries[k]);
        }
        free(entries);
        n_files += n;
    }
    printf("%d files\n", n_files);
    return n_files > 0 ? 0 : 1;
}
