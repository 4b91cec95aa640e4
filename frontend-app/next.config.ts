import type { NextConfig } from "next";

const isStatic = process.env.STATIC_EXPORT === "true";

const config: NextConfig = {
  // `npm run build:static` makes files for any web server; what needs a server (route.server.ts) stays out then
  ...(isStatic ? { output: "export", trailingSlash: true, distDir: "out" } : {}),
  pageExtensions: isStatic ? ["tsx"] : ["tsx", "server.ts"],
  poweredByHeader: false,
  turbopack: { root: import.meta.dirname },
};

export default config;
