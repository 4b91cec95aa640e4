// What each entry costs a page: minified and gzipped, React external. Fails over the budget.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const folder = new URL("..", import.meta.url).pathname;
const core = ["createLivePortfolio", "LivePortfolioError", "NotSignedIn"];
const shared = /\/(context|hooks|format|words|account|errors|wire)\.(js|ts|tsx)$/; // in every page that has the core and the value

// name, source, budget in bytes, whether what the core and ./react bring already counts
const entries = [
  ["core", `export { ${core.join(", ")} } from "./src/index.ts"`, 5_000, true],
  ["core and value", `export * from "./src/index.ts"; export { LivePortfolioProvider, usePortfolio, LivePortfolioValue, ConnectionState } from "./src/react/index.ts"`, 8_000, true],
  ["table", `export * from "./src/react/table.tsx"`, 4_000, false],
  ["chart", `export * from "./src/react/chart.tsx"`, 4_000, false],
  ["allocation", `export * from "./src/react/allocation.tsx"`, 2_000, false],
  ["format", `export * from "./src/format.ts"`, 1_400, true],
  ["transports", `export * from "./src/transports.ts"`, 2_000, false],
  ["deltas", `export * from "./src/deltas.ts"`, 600, false],
];

/** Modules that come with the core are someone else's bytes. */
const sharedOutside = {
  name: "shared outside",
  setup(builder) {
    builder.onResolve({ filter: shared }, ({ path }) => ({ path, external: true }));
  },
};

async function sizeOf(contents, isWhole) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: folder, loader: "ts" },
    bundle: true, minify: true, format: "esm", target: "es2022", write: false, metafile: true, splitting: true, outdir: "out",
    jsx: "automatic", external: ["react", "react/jsx-runtime"], legalComments: "none",
    plugins: isWhole ? [] : [sharedOutside],
  });
  const [entry] = outputFiles.filter(({ path }) => path.endsWith("stdin.js"));
  // chunks that are imported at once count, those imported when needed do not
  const own = Object.entries(metafile.outputs).find(([path]) => path.endsWith("stdin.js"))?.[1];
  const chunks = (own?.imports ?? []).filter(({ kind }) => kind === "import-statement").map(({ path }) => path);
  const texts = [entry, ...outputFiles.filter(({ path }) => chunks.some((chunk) => path.endsWith(chunk)))].map(({ text }) => text);
  return gzipSync(texts.join("\n"), { level: 9 }).length;
}

const sizes = {};
let isOver = false;
for (const [name, contents, budget, isWhole] of entries) {
  const bytes = await sizeOf(contents, isWhole);
  sizes[name] = { bytes, budget };
  if (bytes > budget) isOver = true;
}
const css = await build({ entryPoints: [`${folder}/src/styles.css`], bundle: true, minify: true, write: false });
sizes.styles = { bytes: gzipSync(css.outputFiles[0].text, { level: 9 }).length, budget: 2_600 };
if (sizes.styles.bytes > sizes.styles.budget) isOver = true;
for (const [name, { bytes, budget }] of Object.entries(sizes)) console.log(`${name.padEnd(16)} ${String(bytes).padStart(6)} of ${budget} bytes gzipped${bytes > budget ? "  TOO LARGE" : ""}`);
process.exit(isOver ? 1 : 0);
