/** The same components for pages without React: give an element, get a view, destroy it. */
export { createAllocation, type AllocationBy, type AllocationOptions } from "./allocation.js";
export { createDayChart, type DayChartOptions } from "./chart.js";
export type { Range } from "./series.js";
export { createPositionsTable, type PositionsTableOptions, type View } from "./table.js";
