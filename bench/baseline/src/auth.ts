// Accounts and sessions. A session is the hash of its token in this process' memory.
import { type Context, Hono } from "hono";
import { login, jsonBody, registration } from "./form";
import { Problem, unauthorized } from "./problem";
import * as store from "./store";

const TTL_SECONDS = 86400;
/** As the task API hashes: argon2id, 19 MiB, two passes. */
const ARGON2 = { algorithm: "argon2id", memoryCost: 19456, timeCost: 2 } as const;

export type Env = { Variables: { user: number } };

interface Session {
  user: number;
  until: number;
}

const sessions = new Map<string, Session>();
const nobody = await Bun.password.hash("nobody at all", ARGON2);
const digest = (token: string) => new Bun.CryptoHasher("sha256").update(token).digest("base64");

/** The token in `Authorization`, else in the cookie. */
function token(c: Context): string | undefined {
  const authorization = c.req.header("authorization");
  if (authorization !== undefined) return /^bearer +(\S+)$/i.exec(authorization)?.[1];
  return /(?:^|; *)SESSIONID=([^;]+)/.exec(c.req.header("cookie") ?? "")?.[1];
}

/** Who asks; throws where there is no live session. */
export function currentUser(c: Context): number {
  const given = token(c);
  const session = given === undefined ? undefined : sessions.get(digest(given));
  if (!session || session.until < Date.now()) throw unauthorized();
  return session.user;
}

function cookie(c: Context, value: string, seconds: number) {
  c.header("set-cookie", `SESSIONID=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${seconds}`);
}

function begin(c: Context, user: store.User, status: 200 | 201): Response {
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
  sessions.set(digest(token), { user: user.id, until: Date.now() + TTL_SECONDS * 1000 });
  cookie(c, token, TTL_SECONDS);
  return c.json({ user, token }, status);
}

setInterval(() => {
  for (const [key, session] of sessions) if (session.until < Date.now()) sessions.delete(key);
}, 60_000).unref();

export const auth = new Hono<Env>()
  .post("/register", async (c) => {
    const { email, password, name } = registration(await jsonBody(c));
    const user = store.createUser(email, name, await Bun.password.hash(password, ARGON2));
    if (!user) throw new Problem(409, "an account with this e-mail exists; log in, or register with another");
    return begin(c, user, 201);
  })
  .post("/login", async (c) => {
    const { email, password } = login(await jsonBody(c));
    const found = store.credentials(email);
    const right = await Bun.password.verify(password, found?.password_hash ?? nobody);
    if (!found || !right) throw unauthorized("the e-mail or the password is wrong");
    const { id, name, created_at } = found;
    return begin(c, { id, email: found.email, name, created_at }, 200);
  })
  .post("/logout", (c) => {
    currentUser(c);
    sessions.delete(digest(token(c)!));
    cookie(c, "", 0);
    return c.body(null, 204);
  })
  .get("/me", (c) => c.json(store.user(currentUser(c))));
