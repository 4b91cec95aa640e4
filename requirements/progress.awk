# pip's output in few lines: a counter on a terminal, else a line for every ten packages.
function show(text, is_last) {
  if (tty) printf "\r\033[K%s%s", text, is_last ? "\n" : ""
  else if (is_last || count % 10 == 0) print text
  fflush()
}
/^Ignoring / { total-- }  # for another system or Python
/^(Collecting|Processing) / { count++; sub(/.*\//, "", $2); show("  fetching package " count " of " total ": " $2) }
/^Installing collected packages/ { show("  unpacking " count " packages; this takes as long again ...", 1) }
/^(ERROR|error|WARNING: .*(hash|yanked))/ { print }
/^Successfully installed/ { show("  installed", 1) }
