import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    environment: "happy-dom",
    restoreMocks: true,
    testTimeout: 60_000, // a busy machine takes longer
  },
});
