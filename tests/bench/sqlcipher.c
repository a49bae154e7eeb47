/* The sealer's work done by SQLCipher: a table of credentials by name, read in random order, verified whole, written
 * durably. Prints one figure a line. Usage: sqlcipher DB ROWS READS COMMITS
 *
 * The key is given raw, so that no passphrase is stretched; the page cache is SQLite's own default. What a row holds is
 * what bench-sealer puts (site.rs): the same names, the same payloads, read in the same order. */
#define SQLITE_HAS_CODEC 1
#include <sqlcipher/sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static sqlite3 *db;

static void check(int code, const char *what) {
  if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return;
  fprintf(stderr, "sqlcipher: %s: %s\n", what, sqlite3_errmsg(db));
  exit(1);
}

static void run(const char *sql) { check(sqlite3_exec(db, sql, NULL, NULL, NULL), sql); }

static double now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void open_db(const char *path) {
  check(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL), path);
  run("PRAGMA key = \"x'2dd29ca851e7b56e4697b0e1f08507293d761a05ce4d1b628663f411a8086d99'\"");
  run("PRAGMA locking_mode = EXCLUSIVE");
  run("PRAGMA journal_mode = WAL");
  run("PRAGMA synchronous = FULL");
}

static sqlite3_stmt *prepare(const char *sql) {
  sqlite3_stmt *statement;
  check(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
  return statement;
}

static long long number(const char *sql) {
  sqlite3_stmt *query = prepare(sql);
  check(sqlite3_step(query), sql);
  long long value = sqlite3_column_int64(query, 0);
  sqlite3_finalize(query);
  return value;
}

static const char *name_of(long row) {
  static char text[32];
  snprintf(text, sizeof text, "service-%07ld", row);
  return text;
}

static const char *payload_of(long row) {
  static char text[64];
  snprintf(text, sizeof text, "token-%07ld-5b1c8e02d94f7a63c0e8b15d", row);
  return text;
}

/* Puts rows from..to, `batch` in each transaction. */
static void put(long from, long to, long batch) {
  sqlite3_stmt *insert = prepare("INSERT OR REPLACE INTO credential VALUES (?1, ?2)");
  for (long row = from; row < to; row++) {
    if ((row - from) % batch == 0) run("BEGIN IMMEDIATE");
    sqlite3_bind_text(insert, 1, name_of(row), -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(insert, 2, payload_of(row), -1, SQLITE_TRANSIENT);
    check(sqlite3_step(insert), "insert");
    sqlite3_reset(insert);
    if ((row - from) % batch == batch - 1 || row == to - 1) run("COMMIT");
  }
  sqlite3_finalize(insert);
}

static int ascending(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static void reads(long rows, long count) {
  sqlite3_stmt *query = prepare("SELECT payload FROM credential WHERE name = ?1");
  double *took = calloc(count, sizeof *took);
  if (!took) exit(1);
  for (long step = 0; step < count; step++) {
    long row = (long)((unsigned long long)step * 7368787ULL % (unsigned long long)rows);
    const char *name = name_of(row);
    double started = now_us();
    sqlite3_bind_text(query, 1, name, -1, SQLITE_STATIC);
    check(sqlite3_step(query), "select");
    const char *payload = (const char *)sqlite3_column_text(query, 0);
    took[step] = now_us() - started;
    if (!payload || strcmp(payload, payload_of(row)) != 0) {
      fprintf(stderr, "sqlcipher: row %ld has another payload\n", row);
      exit(1);
    }
    sqlite3_reset(query);
  }
  sqlite3_finalize(query);
  qsort(took, count, sizeof *took, ascending);
  printf("read_p50 %.3f\nread_p99 %.3f\n", took[(count * 50 + 99) / 100 - 1], took[(count * 99 + 99) / 100 - 1]);
  free(took);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: sqlcipher DB ROWS READS COMMITS\n");
    return 2;
  }
  const char *path = argv[1];
  long rows = atol(argv[2]), count = atol(argv[3]), commits = atol(argv[4]);
  if (rows < 1 || count < 1 || commits < 1) return 2;
  open_db(path);
  run("CREATE TABLE IF NOT EXISTS credential (name TEXT PRIMARY KEY, payload TEXT NOT NULL) WITHOUT ROWID");
  if (number("SELECT count(*) FROM credential") != rows) {
    run("DELETE FROM credential");
    put(0, rows, 1024);
  }
  sqlite3_close(db);

  open_db(path);
  double started = now_us();
  sqlite3_stmt *verify = prepare("PRAGMA integrity_check");
  check(sqlite3_step(verify), "integrity_check");
  if (strcmp((const char *)sqlite3_column_text(verify, 0), "ok") != 0) return 1;
  sqlite3_finalize(verify);
  printf("verify %.3f\n", (now_us() - started) / 1e3);
  reads(rows, count);

  /* Every put is over a row that is there. */
  started = now_us();
  put(0, commits < rows ? commits : rows, 1);
  printf("commit_rate %.1f\n", (commits < rows ? commits : rows) / (now_us() - started) * 1e6);
  long batched = commits * 64 < rows ? commits * 64 : rows;
  started = now_us();
  put(0, batched, 64);
  printf("write_rate %.1f\n", batched / (now_us() - started) * 1e6);
  sqlite3_close(db);
  return 0;
}
