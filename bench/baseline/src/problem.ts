// Errors as RFC 9457 application/problem+json.
import type { Context } from "hono";

export interface FieldError {
  field: string;
  message: string;
}

const TITLES: Record<number, string> = {
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Payload Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Entity",
  500: "Internal Server Error",
};

/** An answer that is not a success. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly errors?: FieldError[],
    readonly headers: Record<string, string> = {},
  ) {
    super(detail);
  }

  body() {
    const { status, detail, errors } = this;
    return { type: "about:blank", title: TITLES[status], status, detail, errors };
  }

  answer(c: Context): Response {
    for (const [name, value] of Object.entries(this.headers)) c.header(name, value);
    c.header("content-type", "application/problem+json");
    return c.body(JSON.stringify(this.body()), this.status as 400);
  }
}

export const invalid = (errors: FieldError[]) => new Problem(422, "the request does not pass validation; see errors", errors);
export const notFound = () => new Problem(404, "there is nothing here");
export const unauthorized = (detail = "log in: this needs a live session") =>
  new Problem(401, detail, undefined, { "www-authenticate": "Bearer" });
