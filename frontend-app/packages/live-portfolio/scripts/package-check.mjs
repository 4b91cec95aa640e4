// The package as a stranger gets it: packed, installed into empty projects, type-checked, built and rendered.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const here = new URL("..", import.meta.url).pathname;
const work = mkdtempSync(join(tmpdir(), "live-portfolio-"));
const only = process.argv[2];
const run = (folder, command, ...args) => execFileSync(command, args, {
  cwd: folder, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: undefined },
}).toString();

const component = `"use client";
import { createLivePortfolio, type Snapshot } from "live-portfolio";
import { Allocation } from "live-portfolio/allocation";
import { DayChart } from "live-portfolio/chart";
import { money } from "live-portfolio/format";
import { ConnectionState, LivePortfolioProvider, LivePortfolioValue, usePortfolio } from "live-portfolio/react";
import { PositionsTable } from "live-portfolio/table";
import "live-portfolio/styles.css";

const client = createLivePortfolio({ url: "wss://realtime.example.com", getToken: async ({ reason }) => (reason === "rejected" ? null : "token") });

function Cash() {
  const cash: string | undefined = usePortfolio("alice", ({ value }: Snapshot) => value?.cash);
  return <p>{money(cash)}</p>;
}

export default function Page() {
  return (
    <LivePortfolioProvider client={client}>
      <LivePortfolioValue accountId="alice" />
      <ConnectionState accountId="alice" />
      <Cash />
      <DayChart accountId="alice" ranges={["1d", "1y"]} />
      <Allocation accountId="alice" by="symbol" />
      <PositionsTable accountId="alice" />
    </LivePortfolioProvider>
  );
}
`;
const tsconfig = (extra) => JSON.stringify({
  compilerOptions: { target: "ES2022", lib: ["dom", "dom.iterable", "esnext"], module: "esnext", moduleResolution: "bundler", jsx: "react-jsx", strict: true,
    noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, noEmit: true, skipLibCheck: false, esModuleInterop: true, ...extra },
  include: ["**/*.ts", "**/*.tsx"], exclude: ["node_modules"],
});
const react = (major) => ({ react: `^${major}.0.0`, "react-dom": `^${major}.0.0`, "@types/react": `^${major}.0.0`, "@types/react-dom": `^${major}.0.0`, typescript: "7.0.2" });
const render = `import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { LivePortfolioProvider, LivePortfolioValue } from "live-portfolio/react";
import { createFixedPortfolio, states } from "live-portfolio/testing";
const client = createFixedPortfolio({ alice: states.live });
console.log(renderToString(createElement(LivePortfolioProvider, { client }, createElement(LivePortfolioValue, { accountId: "alice" }))));
`;
const vite = (major) => ({
  dependencies: { ...react(major), vite: "^8.0.0", "@vitejs/plugin-react": "^6.0.0" },
  files: {
    "src/Page.tsx": component,
    "src/env.d.ts": 'declare module "*.css";\n',
    "src/main.tsx": 'import { createRoot } from "react-dom/client";\nimport Page from "./Page";\ncreateRoot(document.querySelector("#root") as HTMLElement).render(<Page />);\n',
    "index.html": '<!doctype html><div id="root"></div><script type="module" src="/src/main.tsx"></script>',
    "vite.config.ts": 'import react from "@vitejs/plugin-react";\nexport default { plugins: [react()] };\n',
    "tsconfig.json": tsconfig({ skipLibCheck: true }),
  },
  build: (folder) => {
    run(folder, "npx", "tsc");
    run(folder, "npx", "vite", "build", "--logLevel", "error");
    const scripts = readdirSync(join(folder, "dist/assets")).filter((name) => name.endsWith(".js"));
    if (scripts.length < 2) throw new Error("the fallbacks are no chunk of their own");
  },
});
const projects = {
  "next-16": {
    dependencies: { ...react(19), next: "16.4.6", "@types/node": "^24.0.0" },
    files: {
      "app/layout.tsx": 'export default function Layout({ children }: { children: React.ReactNode }) {\n  return <html lang="en"><body>{children}</body></html>;\n}\n',
      "app/page.tsx": component,
      "tsconfig.json": tsconfig({ plugins: [{ name: "next" }], skipLibCheck: true, isolatedModules: true, resolveJsonModule: true, allowJs: true, incremental: true }),
      "next.config.mjs": "export default { turbopack: { root: import.meta.dirname } };\n",
    },
    build: (folder) => {
      run(folder, "npx", "next", "build");
      if (!readFileSync(join(folder, ".next/server/app/index.html"), "utf8").includes("Current Value")) throw new Error("not in what Next rendered");
    },
  },
  "vite-react-19": vite(19),
  "vite-react-18": vite(18),
};

try {
  const [packed] = JSON.parse(run(here, "npm", "pack", "--json", "--silent", "--pack-destination", work));
  for (const [name, { dependencies, files, build }] of Object.entries(projects)) {
    if (only && only !== name) continue;
    const folder = join(work, name);
    const own = { name, private: true, type: "module", dependencies: { ...dependencies, "live-portfolio": `file:../${packed.filename}` } };
    for (const [path, text] of Object.entries({ ...files, "package.json": JSON.stringify(own), "render.mjs": render })) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    run(folder, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error");
    build(folder);
    const html = run(folder, "node", "render.mjs");
    if (!html.includes("Current Value") || !html.includes("—") || html.includes("104,211")) throw new Error(`${name} renders ${html}`);
    console.log(`${name.padEnd(16)} types, builds, renders`);
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
