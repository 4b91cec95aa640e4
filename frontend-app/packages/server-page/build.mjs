// Builds the page into the Python package, whose wheel and editable install then need no Node.
// `--check` fails when what lies there is not what the sources say, or weighs too much.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const BYTES_MAX = 16_000; // gzipped, everything that the page can ever load
const here = new URL(".", import.meta.url).pathname;
const target = `${here}../../../src/portfolio_realtime/websocket_server/page/`;

/** This page comes from the server itself, by the same way as its WebSocket: no fallbacks, and one address. */
const sameServer = {
  name: "same server",
  setup(builder) {
    builder.onResolve({ filter: /^\.\/parts\.js$/ }, () => ({ path: `${here}src/parts.ts` }));
    builder.onResolve({ filter: /^\.\/address\.js$/ }, () => ({ path: `${here}src/address.ts` }));
  },
};
const bundle = async (source, options) => (await build({ absWorkingDir: here, entryPoints: [source], bundle: true, charset: "utf8", write: false, ...options })).outputFiles[0].text;
const script = await bundle("src/main.ts", { format: "esm", target: "es2022", plugins: [sameServer] });
// Names with a capital inside are ours alone: those of the wire are snake_case, and those of the browser are known to terser,
// but for these of Intl.
const properties = { regex: /^([a-z]+[A-Z]\w*|cells|destroy|flash|hops|http|interrupt|known|level|lingering|listeners|look|one|points|probe|row|several|subscribe|tags|take|texts|tone)$/, reserved: ["maximumFractionDigits", "minimumFractionDigits", "signDisplay"] };
const compress = { passes: 5, pure_getters: true, unsafe: true, unsafe_arrows: true, unsafe_methods: true, keep_fargs: false, inline: 1, lhs_constants: false, hoist_funs: true, unsafe_comps: true };
const lets = script.replace(/\bconst (?=[\w$[{])/g, "let "); // one word in place of two packs better
const { code } = await minify(lets, { module: true, ecma: 2020, compress, mangle: { properties }, format: { comments: false } });
const style = (await bundle("src/page.css", { minify: true, target: ["chrome111", "firefox113", "safari16.4"] })).replace(/(--[\w-]+): /g, "$1:");

const files = new Map();
const add = (name, ending, text) => {
  const path = `assets/${name}-${createHash("sha256").update(text).digest("hex").slice(0, 10)}.${ending}`;
  files.set(path, Buffer.from(text));
  return path;
};
const html = readFileSync(`${here}src/index.html`, "utf8")
  .replace("<!-- style -->", `<link rel="stylesheet" href="${add("style", "css", style)}">`)
  .replace("<!-- script -->", `<script src="${add("app", "js", code)}" type="module"></script>`)
  .replace(/\n\s+/g, "\n");
files.set("index.html", Buffer.from(html));
files.set("icon.svg", readFileSync(`${here}src/icon.svg`));

let bytes = 0;
for (const content of files.values()) bytes += gzipSync(content, { level: 9 }).length;
console.log(`server page      ${bytes} of ${BYTES_MAX} bytes gzipped, in ${files.size} files`);
if (bytes > BYTES_MAX) fail("the page weighs too much");

const found = readdirSync(target, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(target, `${entry.parentPath}/${entry.name}`))
  .filter((name) => name.startsWith("assets/") || files.has(name));
if (process.argv.includes("--check")) {
  const differing = [...new Set([...found, ...files.keys()])]
    .filter((name) => !found.includes(name) || !files.get(name)?.equals(readFileSync(target + name)));
  if (differing.length) fail(`not what the sources say: ${differing.join(", ")}; build it again: make page`);
} else {
  for (const name of found) rmSync(target + name);
  mkdirSync(`${target}assets`, { recursive: true });
  for (const [name, content] of files) writeFileSync(target + name, content);
}

function fail(why) {
  console.error(`server page: ${why}`);
  process.exit(1);
}
