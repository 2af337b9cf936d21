// Reads bodies and query strings: every wrong field is named.
import type { Context } from "hono";
import { type FieldError, Problem, invalid } from "./problem";
import { PRIORITIES, STATUSES, type Priority, type Status, type TaskFields } from "./store";

const MAX_BODY = 1 << 20;
const MAX_LIMIT = 100;
const DEFAULT_LIMIT = 20;
const TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

type Fields = Record<string, unknown>;
type Rule<T> = (value: unknown) => T | undefined;

export interface Page {
  status: Status | null;
  priority: Priority | null;
  limit: number;
  cursor: string | undefined;
}

/** The JSON object in a request's body. */
export async function jsonBody(c: Context): Promise<Fields> {
  const type = c.req.header("content-type");
  if (!type?.startsWith("application/") || !/^application\/(json|[^;]+\+json)\s*(;|$)/i.test(type)) {
    throw new Problem(415, "the body must be JSON: send Content-Type: application/json");
  }
  const text = await c.req.text();
  if (text.length > MAX_BODY) throw new Problem(413, "the body is larger than 1 MiB");
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw new Problem(400, `the body is not JSON: ${error}`);
  }
  return object(body, "");
}

export function object(value: unknown, field: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw invalid([{ field, message: "must be a JSON object" }]);
}

/** Collects what is wrong with the fields of one object. */
class Form {
  readonly errors: FieldError[] = [];
  constructor(private readonly fields: Fields) {}

  /** The field's value by `rule`; undefined where it is absent or wrong. */
  read<T>(field: string, rule: Rule<T>, message: string, absent: "required" | "optional" | "nullable"): T | null | undefined {
    const value = this.fields[field];
    if (value === undefined || value === null) {
      if (absent === "nullable") return value;
      if (absent === "required") this.errors.push({ field, message: "is required" });
      else if (value === null) this.errors.push({ field, message: "must not be null" });
      return undefined;
    }
    const read = rule(value);
    if (read === undefined) this.errors.push({ field, message });
    return read;
  }

  finish() {
    if (this.errors.length > 0) throw invalid(this.errors);
  }
}

function length(text: string): number {
  let length = text.length;
  // Surrogate pairs are one character each.
  for (let i = 0; i < text.length; i++) if ((text.charCodeAt(i) & 0xfc00) === 0xd800) length--;
  return length;
}

const text =
  (min: number, max: number): Rule<string> =>
  (value) =>
    typeof value === "string" && !value.includes("\0") && length(value) >= min && length(value) <= max ? value : undefined;
const title: Rule<string> = (value) => {
  const title = text(1, 255)(value);
  return title?.trim() ? title : undefined;
};
const description = text(0, 65536);
const status: Rule<Status> = (value) => (STATUSES.includes(value as Status) ? (value as Status) : undefined);
const priority: Rule<Priority> = (value) => (PRIORITIES.includes(value as Priority) ? (value as Priority) : undefined);
const time: Rule<string> = (value) => {
  const at = typeof value === "string" && TIME.test(value) ? new Date(value) : undefined;
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : undefined;
};
const limit: Rule<number> = (value) => {
  const limit = /^\d{1,3}$/.test(value as string) ? Number(value) : 0;
  return limit >= 1 && limit <= MAX_LIMIT ? limit : undefined;
};
const email: Rule<string> = (value) => {
  const email = typeof value === "string" ? value.trim() : "";
  return email.length <= 254 && /^[^\s@<>,;"\\]{1,64}@[^\s@<>,;"\\.-][^\s@<>,;"\\]*$/.test(email) ? email : undefined;
};

/** The fields of a task; all of them but the title may be absent, and in a patch the title, too. */
export function taskFields(fields: Fields, patch: boolean): TaskFields {
  const form = new Form(fields);
  const task: TaskFields = {
    title: form.read("title", title, "must have 1 to 255 characters and not be blank", patch ? "optional" : "required") ?? undefined,
    description: form.read("description", description, "must be a string of at most 65536 characters", "nullable"),
    status: form.read("status", status, `must be one of ${STATUSES.join(", ")}`, "optional") ?? undefined,
    priority: form.read("priority", priority, `must be one of ${PRIORITIES.join(", ")}`, "optional") ?? undefined,
    due_date: form.read("due_date", time, "must be a time like 2030-01-31T12:00:00Z (RFC 3339)", "nullable"),
  };
  form.finish();
  return task;
}

/** What a list or a search is asked for. */
export function page(query: Record<string, string>): Page {
  const form = new Form(query);
  const page = {
    status: (query.status && form.read("status", status, `must be one of ${STATUSES.join(", ")}`, "optional")) || null,
    priority: (query.priority && form.read("priority", priority, `must be one of ${PRIORITIES.join(", ")}`, "optional")) || null,
    limit: (query.limit && form.read("limit", limit, `must be a whole number from 1 to ${MAX_LIMIT}`, "optional")) || DEFAULT_LIMIT,
    cursor: query.cursor || undefined,
  };
  form.finish();
  return page;
}

export function registration(fields: Fields) {
  const form = new Form(fields);
  const read = {
    email: form.read("email", email, "must be an e-mail address like me@example.com", "required") ?? "",
    password: form.read("password", text(8, 256), "must have 8 to 256 characters", "required") ?? "",
    name: form.read("name", text(1, 100), "must have 1 to 100 characters", "nullable") ?? null,
  };
  form.finish();
  return read;
}

export function login(fields: Fields) {
  const form = new Form(fields);
  const any: Rule<string> = (value) => (typeof value === "string" ? value : undefined);
  const read = {
    email: form.read("email", any, "must be a string", "required") ?? "",
    password: form.read("password", any, "must be a string", "required") ?? "",
  };
  form.finish();
  return read;
}
