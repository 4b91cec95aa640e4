// node bench/build.mjs FOLDER: the two pages of `make bench-page`, as production builds.
import { build } from "esbuild";

await build({
  entryPoints: ["ours", "common"].map((name) => new URL(`${name}.tsx`, import.meta.url).pathname),
  bundle: true, minify: true, format: "esm", target: "es2022", jsx: "automatic", outdir: process.argv[2],
  define: { "process.env.NODE_ENV": '"production"' },
});
