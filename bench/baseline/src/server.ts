// The API that the platform replaces, written well: Bun, Hono and SQLite in one process. Environment: PORT, METRICS_PORT, DATABASE,
// SYNCHRONOUS (NORMAL or FULL), SIGNING_KEY.
import { Hono } from "hono";
import { type Env, auth } from "./auth";
import { observe, render } from "./metrics";
import { Problem, notFound } from "./problem";
import { close } from "./store";
import { tasks } from "./tasks";

const REQUEST_ID = "x-request-id";

/** The route of a path, for the histogram. */
function route(path: string): string {
  const pattern = /^\/api\/tasks\/\d+$/.test(path) ? "/api/tasks/:id" : path;
  return methods.has(pattern) ? pattern : "unmatched";
}

/** A path that is there has other methods. */
function nothingFor(path: string): Problem {
  const allow = methods.get(route(path));
  return allow ? new Problem(405, "this method is not allowed here; see the Allow header", undefined, { allow }) : notFound();
}

function requestId(given: string | undefined): string {
  return given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : crypto.randomUUID();
}

const app = new Hono<Env>()
  .use(async (c, next) => {
    const begun = performance.now();
    await next();
    c.header(REQUEST_ID, requestId(c.req.header(REQUEST_ID)));
    observe(c.req.method, route(c.req.path), c.res.status, (performance.now() - begun) / 1000);
  })
  .get("/api/health", (c) => c.json({ status: "ok" }))
  .route("/api/auth", auth)
  .route("/api/tasks", tasks)
  .notFound((c) => nothingFor(c.req.path).answer(c))
  .onError((error, c) => {
    if (error instanceof Problem) return error.answer(c);
    console.error(error);
    return new Problem(500, "something went wrong here").answer(c);
  });
const methods = new Map<string, string>();
for (const { path, method } of app.routes.filter(({ method }) => method !== "ALL")) {
  methods.set(path, methods.has(path) ? `${methods.get(path)}, ${method}` : method);
}

const hostname = "127.0.0.1";
const server = Bun.serve({ hostname, port: process.env.PORT ?? 3000, fetch: app.fetch, maxRequestBodySize: 1 << 20 });
const metrics = Bun.serve({ hostname, port: process.env.METRICS_PORT ?? 3001, fetch: () => new Response(render()) });

process.on("SIGTERM", async () => {
  await Promise.all([server.stop(), metrics.stop()]);
  close();
  process.exit(0);
});
