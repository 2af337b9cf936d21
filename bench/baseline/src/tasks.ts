// The requests about tasks.
import { Hono } from "hono";
import { type Env, currentUser } from "./auth";
import { jsonBody, object, page, taskFields } from "./form";
import { Problem, invalid, notFound } from "./problem";
import * as store from "./store";

const MAX_BATCH = 100;

const hmac = (text: string) => new Bun.CryptoHasher("sha256", key).update(text).digest("base64url").slice(0, 22);
const key = process.env.SIGNING_KEY ?? crypto.randomUUID();

/** A place in a list, signed: it is bound to its user and to what is listed. */
const seal = (list: string, id: number) => `${id.toString(36)}.${hmac(`${list} ${id}`)}`;

function open(list: string, cursor: string | undefined): number {
  if (cursor === undefined) return store.NEWEST_OF_ALL;
  const id = Number.parseInt(cursor.split(".", 1)[0], 36);
  if (cursor !== seal(list, id)) throw new Problem(400, "this cursor was not issued for this list; leave it out to begin at the newest task");
  return id;
}

/** One more than asked for tells whether there is another page. */
function answer(list: string, tasks: store.Task[], limit: number) {
  const more = tasks.length > limit;
  if (more) tasks.length = limit;
  return { items: tasks, next_cursor: more ? seal(list, tasks[limit - 1].id) : null };
}

function taskId(text: unknown): number {
  if (typeof text === "number" ? Number.isSafeInteger(text) : /^\d{1,16}$/.test(text as string)) return Number(text);
  throw notFound();
}

const found = <T>(value: T | null | false): T => {
  if (!value) throw notFound();
  return value;
};

/** One operation of a batch; what is wrong with it is its own result. */
function operation(user: number, value: unknown, index: number) {
  try {
    const { op, id, task } = object(value, `operations[${index}]`);
    switch (op) {
      case "create":
        return { status: 201, task: store.createTask(user, taskFields(object(task, "task"), false)) };
      case "update":
        return { status: 200, task: found(store.changeTask(user, taskId(id), taskFields(object(task, "task"), true))) };
      case "delete":
        found(store.removeTask(user, taskId(id)));
        return { status: 204 };
      default:
        throw invalid([{ field: "op", message: "must be one of create, update, delete" }]);
    }
  } catch (error) {
    if (error instanceof Problem) return { status: error.status, error: error.body() };
    throw error;
  }
}

export const tasks = new Hono<Env>()
  .get("/", (c) => {
    const user = currentUser(c);
    const { status, priority, limit, cursor } = page(c.req.query());
    const list = `${user} ${status} ${priority}`;
    return c.json(answer(list, store.listTasks(user, status, priority, open(list, cursor), limit + 1), limit));
  })
  .post("/", async (c) => {
    const user = currentUser(c);
    const task = store.createTask(user, taskFields(await jsonBody(c), false));
    c.header("location", `/api/tasks/${task.id}`);
    return c.json(task, 201);
  })
  .get("/search", (c) => {
    const user = currentUser(c);
    const query = c.req.query();
    const { limit, cursor } = page(query);
    const q = query.q?.trim();
    if (!q) throw invalid([{ field: "q", message: "is required" }]);
    const list = `${user} search ${q}`;
    return c.json(answer(list, store.search(user, q, open(list, cursor), limit + 1), limit));
  })
  .get("/summary", (c) => c.json(store.summary(currentUser(c))))
  .post("/batch", async (c) => {
    const user = currentUser(c);
    const { operations } = await jsonBody(c);
    if (!Array.isArray(operations) || operations.length < 1 || operations.length > MAX_BATCH) {
      throw invalid([{ field: "operations", message: `must be an array of 1 to ${MAX_BATCH} operations` }]);
    }
    return c.json({ results: store.together(() => operations.map((value, index) => operation(user, value, index))) });
  })
  .get("/:id", (c) => c.json(found(store.task(currentUser(c), taskId(c.req.param("id"))))))
  .patch("/:id", async (c) => {
    const user = currentUser(c);
    const patch = taskFields(await jsonBody(c), true);
    return c.json(found(store.changeTask(user, taskId(c.req.param("id")), patch)));
  })
  .delete("/:id", (c) => {
    found(store.removeTask(currentUser(c), taskId(c.req.param("id"))));
    return c.body(null, 204);
  });
