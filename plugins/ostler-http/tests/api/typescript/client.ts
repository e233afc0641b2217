// A program against the types that were generated from the document: what does not fit them does not compile.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { env: Record<string, string | undefined> };

const client = createClient<paths>({
  baseUrl: process.env.BASE_URL ?? "",
  headers: { Authorization: `Bearer ${process.env.TOKEN}` },
});

const whoami = await client.GET("/whoami");
const created = await client.POST("/topics/volume/methods/create_volume", {
  params: { header: { "Idempotency-Key": "typescript-1" } },
  body: { name: "typed", size: 1048576 },
});
const again = await client.POST("/topics/volume/methods/create_volume", { body: { name: "typed", size: 1048576 } });
const listed = await client.GET("/topics/volume/methods/list_volumes");
const services = await client.GET("/services", { params: { query: { topic: "volume", limit: 5 } } });
const submitted = await client.POST("/topics/volume/methods/delete_volume/submit", {
  params: { header: { Prefer: "wait=20" } },
  body: { name: "typed" },
});

console.log(
  JSON.stringify({
    role: whoami.data?.role,
    size: created.data?.size,
    problem: again.error && { status: again.error.status, error: again.error.error },
    names: listed.data?.map((each) => each.name),
    since: services.data?.[0]?.since,
    submitted: submitted.response.status,
    state: submitted.data?.state,
  }),
);
