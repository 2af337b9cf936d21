// Users and tasks in SQLite. Every statement is prepared once; a task's columns are kept as its JSON shows them.
import { Database } from "bun:sqlite";

export const STATUSES = ["pending", "in_progress", "completed"] as const;
export const PRIORITIES = ["low", "medium", "high", "urgent"] as const;
export type Status = (typeof STATUSES)[number];
export type Priority = (typeof PRIORITIES)[number];

export interface User {
  id: number;
  email: string;
  name: string | null;
  created_at: string;
}

export interface TaskFields {
  title?: string;
  description?: string | null;
  status?: Status;
  priority?: Priority;
  due_date?: string | null;
}

export interface Task extends Required<TaskFields> {
  id: number;
  user_id: number;
  created_at: string;
  updated_at: string;
}

const db = new Database(process.env.DATABASE ?? "baseline.db", { create: true, strict: true });
db.exec(`
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = ${process.env.SYNCHRONOUS === "FULL" ? "FULL" : "NORMAL"};
  PRAGMA foreign_keys = ON;
  PRAGMA cache_size = -65536;
  CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    name TEXT,
    password_hash TEXT NOT NULL,
    created_at TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    title TEXT NOT NULL,
    description TEXT,
    status TEXT NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed')),
    priority TEXT NOT NULL CHECK (priority IN ('low', 'medium', 'high', 'urgent')),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    due_date TEXT
  ) STRICT;
  -- Ids rise, so newest first is by id, and the row id ends every index.
  CREATE INDEX IF NOT EXISTS tasks_user ON tasks (user_id);
  CREATE INDEX IF NOT EXISTS tasks_status ON tasks (user_id, status, priority);
  -- The owner is a word of the index, so that a search looks at its user's tasks alone.
  CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (owner, title, description, content = '', contentless_delete = 1);
`);

const TASK = "id, user_id, title, description, status, priority, created_at, updated_at, due_date";
const NEWEST = "ORDER BY id DESC LIMIT $limit";
/** Beyond every id. */
export const NEWEST_OF_ALL = Number.MAX_SAFE_INTEGER;

const insertUser = db.query<User, [string, string, string | null, string, string]>(
  `INSERT INTO users (email, email_key, name, password_hash, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
   ON CONFLICT DO NOTHING RETURNING id, email, name, created_at`,
);
const selectCredentials = db.query<User & { password_hash: string }, [string]>("SELECT * FROM users WHERE email_key = ?1");
const selectUser = db.query<User, [number]>("SELECT id, email, name, created_at FROM users WHERE id = ?1");
const insertTask = db.query<Task, (string | number | null)[]>(
  `INSERT INTO tasks (user_id, title, description, status, priority, created_at, updated_at, due_date)
   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7) RETURNING ${TASK}`,
);
const selectTask = db.query<Task, [number, number]>(`SELECT ${TASK} FROM tasks WHERE id = ?1 AND user_id = ?2`);
const updateTask = db.query<Task, (string | number | null)[]>(
  `UPDATE tasks SET title = ?3, description = ?4, status = ?5, priority = ?6, due_date = ?7, updated_at = ?8
   WHERE id = ?1 AND user_id = ?2 RETURNING ${TASK}`,
);
const deleteTask = db.query("DELETE FROM tasks WHERE id = ?1 AND user_id = ?2");
const indexWords = db.query("INSERT OR REPLACE INTO words (rowid, owner, title, description) VALUES (?1, ?2, ?3, ?4)");
const forgetWords = db.query("DELETE FROM words WHERE rowid = ?1");

type ListParams = { user: number; after: number; limit: number; status?: string; priority?: string };
const list = (conditions: string) =>
  db.query<Task, ListParams>(`SELECT ${TASK} FROM tasks WHERE user_id = $user AND id < $after ${conditions} ${NEWEST}`);
const lists = {
  all: list(""),
  status: list("AND status = $status"),
  priority: list("AND priority = $priority"),
  both: list("AND status = $status AND priority = $priority"),
};
const searchTasks = db.query<Task, { words: string; after: number; limit: number }>(
  `SELECT ${TASK} FROM tasks WHERE id IN (
     SELECT rowid FROM words WHERE words MATCH $words AND rowid < $after ORDER BY rowid DESC LIMIT $limit
   ) ORDER BY id DESC`,
);
const countTasks = db.query<{ status: Status; priority: Priority; count: number }, [number]>(
  "SELECT status, priority, count(*) AS count FROM tasks WHERE user_id = ?1 GROUP BY status, priority",
);

const now = () => new Date().toISOString();
const key = (email: string) => email.trim().toLowerCase();
const owner = (user: number) => `u${user}`;

export function createUser(email: string, name: string | null, passwordHash: string): User | null {
  return insertUser.get(email, key(email), name, passwordHash, now());
}

export const credentials = (email: string) => selectCredentials.get(key(email));
export const user = (id: number) => selectUser.get(id);

export const createTask = db.transaction((user: number, task: TaskFields): Task => {
  const { title, description = null, status = "pending", priority = "medium", due_date = null } = task;
  const created = insertTask.get(user, title!, description, status, priority, now(), due_date)!;
  indexWords.run(created.id, owner(user), title!, description);
  return created;
}).immediate;

export const task = (user: number, id: number) => selectTask.get(id, user);

export const changeTask = db.transaction((user: number, id: number, patch: TaskFields): Task | null => {
  const old = selectTask.get(id, user);
  if (!old) return null;
  const { title = old.title, description = old.description, status = old.status, priority = old.priority, due_date = old.due_date } = patch;
  if (title !== old.title || description !== old.description) indexWords.run(id, owner(user), title, description);
  return updateTask.get(id, user, title, description, status, priority, due_date, now());
}).immediate;

export const removeTask = db.transaction((user: number, id: number): boolean => {
  if (deleteTask.run(id, user).changes === 0) return false;
  forgetWords.run(id);
  return true;
}).immediate;

export function listTasks(user: number, status: Status | null, priority: Priority | null, after: number, limit: number): Task[] {
  if (status && priority) return lists.both.all({ user, after, limit, status, priority });
  if (status) return lists.status.all({ user, after, limit, status });
  if (priority) return lists.priority.all({ user, after, limit, priority });
  return lists.all.all({ user, after, limit });
}

/** The tasks in whose title or description all of the words are. */
export function search(user: number, query: string, after: number, limit: number): Task[] {
  const words = query.match(/[\p{L}\p{N}]+/gu) ?? [];
  if (words.length === 0) return [];
  const match = `owner:${owner(user)} AND {title description}: (${words.map((word) => `"${word}"`).join(" AND ")})`;
  return searchTasks.all({ words: match, after, limit });
}

export function summary(user: number) {
  const by_status: Record<string, number> = { pending: 0, in_progress: 0, completed: 0 };
  const by_priority: Record<string, number> = { low: 0, medium: 0, high: 0, urgent: 0 };
  let total = 0;
  for (const { status, priority, count } of countTasks.all(user)) {
    by_status[status] += count;
    by_priority[priority] += count;
    total += count;
  }
  return { total, by_status, by_priority };
}

/** Runs all of it in one transaction. */
export const together = <T>(work: () => T): T => db.transaction(work).immediate();
export const close = () => db.close();
