// The live value of one account: one WebSocket, the newest message kept, one drawing a frame.
// Money stays text from the wire to the screen; numbers are made of it only to see which way it moved.

const HEARTBEAT_MS = 20_000
const SILENCE_MS_MAX = 45_000
const RETRY_MS_MIN = 500
const RETRY_MS_MAX = 15_000
const SPOKEN_MS = 30_000
const LIVE_POINTS_MAX = 2_000
const HISTORY_MS = 60_000
const HISTORY_RETRY_MS = 5_000
const FIRST_VALUE_MS = 5_000
const SHORT_MS = 600_000 // a shorter line is labelled with seconds
const FAILURES_SAID = 2
const SYMBOLS_LISTED_MAX = 6
const LIST_MS = 3_000

const $ = (selector) => document.querySelector(selector)
const demo = { isOn: false }
const view = { message: null, rows: new Map(), isDrawing: false, spokenAt: 0 }
// The day: points of the history, then what has been seen since. A point is { at, value, equity, today };
// value is without what the client has brought in today, so that a deposit is no gain; null is a gap.
const day = { points: [], live: [], base: null, trouble: "", timer: 0, asked: 0, pointed: null }
const link = { socket: null, account: null, token: null, attempt: 0, retry: 0, heardAt: 0, waiting: 0 }

// The connection

function connect(account) {
  clearTimeout(link.retry)
  if (account !== link.account) forget()
  link.account = account
  const old = link.socket
  link.socket = null
  old?.close(1000)
  show(view.message ? "reconnecting" : "connecting")
  const scheme = location.protocol === "https:" ? "wss:" : "ws:"
  const socket = new WebSocket(`${scheme}//${location.host}/ws/portfolio/${encodeURIComponent(account)}?detail=positions`)
  link.socket = socket
  link.heardAt = Date.now()
  clearTimeout(link.waiting)
  socket.onopen = () => {
    if (link.token) socket.send(JSON.stringify({ type: "auth", token: link.token }))
    link.waiting = setTimeout(() => {
      if (socket === link.socket && !view.message) notice("Connected, but there is no value of this account yet.")
    }, FIRST_VALUE_MS)
    readHistory() // anew after each interruption: it knows what we have missed
  }
  socket.onmessage = (event) => {
    if (socket !== link.socket) return
    link.heardAt = Date.now()
    receive(JSON.parse(event.data))
  }
  socket.onclose = (event) => {
    if (socket === link.socket) closed(event)
  }
}

function closed(event) {
  link.socket = null
  clearTimeout(link.waiting)
  if (event.code >= 4500 && event.code <= 4999) {
    show("closed")
    notice(REFUSALS[event.code] ?? `The server has closed the connection: ${event.reason || event.code}.`)
    return
  }
  show("reconnecting")
  if (link.attempt >= FAILURES_SAID) {
    const since = view.message ? ` What you see is from ${clockTime(view.message.timestamp)}.` : ""
    notice(`The server cannot be reached${event.reason ? ` (${event.reason})` : ""}; trying again.${since}`)
  }
  const wait = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** link.attempt++) * (0.5 + Math.random() / 2)
  link.retry = setTimeout(reconnect, wait)
}

async function reconnect() {
  if (demo.isOn) await refreshToken().catch(() => {})
  connect(link.account)
}

async function refreshToken() {
  const answer = await fetch("/demo/session", { cache: "no-store" })
  if (!answer.ok) throw new Error(`no session: ${answer.status}`)
  const session = await answer.json()
  link.token = session.token
  return session
}

const REFUSALS = {
  4500: "The server does not accept these credentials.",
  4501: "Too many connections are open for this user.",
  4503: "There is no such account, or it is not yours.",
  4505: "The server did not understand this page. Reload it.",
}

setInterval(() => {
  const socket = link.socket
  if (socket?.readyState !== WebSocket.OPEN) return
  if (Date.now() - link.heardAt > SILENCE_MS_MAX) {
    link.socket = null
    socket.close()
    closed({ code: 1006 })
  } else {
    socket.send(JSON.stringify({ type: "heartbeat", timestamp: Date.now() }))
  }
}, HEARTBEAT_MS)

// A phone that wakes up, or a network that is back, does not wait for the timer.
for (const name of ["online", "pageshow"]) {
  addEventListener(name, () => {
    if (link.account && !link.socket && $("#connection").dataset.state === "reconnecting") reconnect()
  })
}

// Messages

function receive(message) {
  if (message.type === "portfolio") {
    link.attempt = 0
    const isOlder = view.message &&
      (message.epoch - view.message.epoch || message.sequence - view.message.sequence) < 0
    if (isOlder) return
    for (const row of message.positions ?? []) {
      if (row.market_value === undefined) view.rows.delete(row.symbol) // gone; closed today has a row until the roll
      else view.rows.set(row.symbol, row)
    }
    if (view.message && message.last_equity !== view.message.last_equity) readHistory() // a new day
    view.message = message
    addLive(message)
    notice("")
    show(message.stale.length ? "stale" : "live")
    draw()
  } else if (message.type === "token_expiring" && demo.isOn) {
    refreshToken()
      .then(() => link.socket?.send(JSON.stringify({ type: "auth", token: link.token })))
      .catch(() => {}) // the server will close with 4004, and we come back with a fresh one
  } else if (message.type === "error") {
    notice(message.message)
  }
}

function forget() {
  clearTimeout(day.timer)
  Object.assign(view, { message: null, rows: new Map(), spokenAt: 0 })
  Object.assign(day, { points: [], live: [], base: null, trouble: "", pointed: null })
  $("#positions tbody").replaceChildren()
  for (const id of ["#total-value", "#cash", "#last-equity", "#external-cash-flow", "#updated"]) put($(id), "—")
  put($("#today-return .text"), "—")
  put($("#today-return .arrow"), "")
  $("#today-return").className = ""
  $("#caveat").hidden = $("#no-positions").hidden = true
  put($("#position-count"), "")
  drawLine()
}

// The day so far

async function readHistory() {
  clearTimeout(day.timer)
  const account = link.account
  const asked = ++day.asked
  const headers = link.token ? { Authorization: `Bearer ${link.token}` } : {}
  let wait = HISTORY_MS
  let trouble = ""
  try {
    const url = `/v1/portfolio/${encodeURIComponent(account)}/history?range=1d`
    const answer = await fetch(url, { headers, cache: "no-store" })
    if (asked !== day.asked || account !== link.account) return
    if (answer.ok) {
      takeHistory(await answer.json())
    } else {
      trouble = "The day so far cannot be shown now"
      wait = answer.status < 500 ? HISTORY_MS : HISTORY_RETRY_MS
    }
  } catch {
    trouble = "The day so far cannot be shown now"
    wait = HISTORY_RETRY_MS
  }
  if (asked !== day.asked || account !== link.account) return
  day.trouble = trouble
  day.timer = setTimeout(readHistory, wait)
  drawLine()
}

function takeHistory(history) {
  const points = history.points.map((point) => point.equity === null
    ? { at: Date.parse(point.timestamp), value: null }
    : pointOf(point.timestamp, point))
  const first = points.findIndex((point) => point.value !== null)
  day.points = first < 0 ? [] : points.slice(first)
  day.base = Number(history.base)
  const last = day.points.findLast((point) => point.value !== null)
  if (last) day.live = day.live.filter((point) => point.at > last.at)
}

function pointOf(timestamp, { equity, external_cash_flow, day_pnl }) {
  return {
    at: Date.parse(timestamp),
    value: Number(equity) - Number(external_cash_flow),
    equity,
    today: day_pnl,
  }
}

function addLive(message) {
  day.live.push(message.equity === null
    ? { at: Date.parse(message.timestamp), value: null }
    : pointOf(message.timestamp, message))
  if (day.live.length > LIVE_POINTS_MAX) day.live = day.live.filter((_, index) => index % 2)
}

// History, then live. Where history ends in a gap before the first live point, the gap stays.
function linePoints() {
  const firstLive = day.live[0]?.at ?? Infinity
  return [...day.points.filter((point) => point.at < firstLive), ...day.live]
}

// The screen

const STATES = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  stale: "Prices are old",
  closed: "Not connected",
}

function show(state) {
  const element = $("#connection")
  if (element.dataset.state === state) return
  element.dataset.state = state
  put($("#connection-text"), STATES[state])
  document.body.classList.toggle("old", state === "reconnecting" || state === "closed")
}

function notice(text) {
  $("#notice").hidden = !text
  put($("#notice"), text)
}

function draw() {
  if (view.isDrawing) return
  view.isDrawing = true
  requestAnimationFrame(() => {
    view.isDrawing = false
    if (view.message) drawMessage(view.message)
  })
}

function drawMessage(message) {
  flash($("#total-value"), message.total_value ?? "—", message.equity)
  const direction = message.day_pnl === null ? "" : sign(message.day_pnl)
  $("#today-return").className = direction
  put($("#today-return .arrow"), { up: "▲", down: "▼" }[direction] ?? "")
  put($("#today-return .text"), message.today_return ?? "—")
  drawCaveat(message)
  put($("#cash"), dollars(message.cash))
  put($("#last-equity"), dollars(message.last_equity))
  put($("#external-cash-flow"), Number(message.external_cash_flow) ? dollars(message.external_cash_flow) : "none")
  const updated = new Date(message.timestamp)
  put($("#updated"), updated.toLocaleTimeString())
  $("#updated").dateTime = message.timestamp
  $("#updated").title = `Newest price: ${new Date(message.as_of).toLocaleString()}`
  drawRows(message)
  drawLine()
  speak(message)
  document.title = `${message.total_value ?? "—"} · Portfolio`
}

function drawCaveat(message) {
  const parts = []
  if (message.unpriced.length) {
    parts.push(`Unpriced: ${listed(message.unpriced)}; the known part is ${dollars(message.known_equity)}`)
  }
  if (message.unvalued?.length) {
    parts.push(`Moved in or out at a value that is not known: ${listed(message.unvalued)}; today is not known`)
  }
  if (message.stale.length) {
    const ages = message.stale_ages_s ?? {}
    const oldest = [...message.stale].sort((one, other) => (ages[other] ?? 0) - (ages[one] ?? 0))
    parts.push(`Old prices: ${listed(oldest.map((symbol) => symbol in ages ? `${symbol} (${age(ages[symbol])})` : symbol))}`)
  }
  $("#caveat").hidden = !parts.length
  put($("#caveat"), parts.join(" · "))
}

function drawRows(message) {
  const body = $("#positions tbody")
  const existing = new Map([...body.rows].map((row) => [row.dataset.symbol, row]))
  const symbols = [...view.rows.keys()].sort()
  const ages = new Map(message.stale.map((symbol) => [symbol, message.stale_ages_s?.[symbol]]))
  const unvalued = new Set(message.unvalued)
  symbols.forEach((symbol, index) => {
    const element = existing.get(symbol) ?? newRow(symbol)
    existing.delete(symbol)
    if (body.rows[index] !== element) body.insertBefore(element, body.rows[index] ?? null)
    const row = view.rows.get(symbol)
    drawRow(element, row, rowTags(row, ages, unvalued))
  })
  for (const gone of existing.values()) gone.remove()
  const held = symbols.filter((symbol) => Number(view.rows.get(symbol).quantity) !== 0)
  put($("#position-count"), held.length ? `· ${held.length}` : "")
  $("#no-positions").hidden = symbols.length > 0
}

function newRow(symbol) {
  const row = document.createElement("tr")
  row.dataset.symbol = symbol
  const head = document.createElement("th")
  head.scope = "row"
  head.append(symbol)
  row.append(head, ...Array.from({ length: 5 }, () => document.createElement("td")))
  return row
}

const QUALITIES = { delayed: "delayed", indicative: "indicative", end_of_day: "previous close", halted: "halted" }

// What has to be said about a row, most important first
function rowTags(row, ages, unvalued) {
  const tags = []
  if (Number(row.quantity) === 0) tags.push("closed today")
  else if (row.mark === null) tags.push("unpriced")
  else if (ages.has(row.symbol)) tags.push(ages.get(row.symbol) === undefined ? "old price" : `${age(ages.get(row.symbol))} old`)
  if (QUALITIES[row.mark_quality]) tags.push(QUALITIES[row.mark_quality])
  if (unvalued.has(row.symbol)) tags.push("transferred")
  return tags
}

function drawRow(element, row, tags) {
  const [head, quantity, mark, value, today, unrealized] = element.cells
  if ([...head.children].map((tag) => tag.textContent).join() !== tags.join()) {
    for (const tag of [...head.children]) tag.remove()
    head.append(...tags.map((tag) => Object.assign(document.createElement("span"), { className: "tag", textContent: tag })))
  }
  put(quantity, grouped(row.quantity))
  flash(mark, row.mark === null ? "—" : dollars(row.mark), row.mark)
  const quality = (row.mark_quality ?? row.mark_source ?? "").replaceAll("_", " ")
  mark.title = row.mark_as_of ? `${quality}, ${new Date(row.mark_as_of).toLocaleString()}` : ""
  flash(value, dollars(row.market_value), row.market_value)
  signed(today, row.day_pnl)
  signed(unrealized, row.unrealized_pnl)
}

function signed(cell, amount) {
  put(cell, amount === null ? "—" : plus(amount))
  cell.className = amount === null ? "" : sign(amount)
}

function flash(element, text, amount) {
  const before = element.dataset.amount
  put(element, text)
  if (amount === null || amount === before) return
  element.dataset.amount = amount
  if (before === undefined) return
  element.classList.remove("flash-up", "flash-down")
  void element.offsetWidth // begins the animation anew
  element.classList.add(Number(amount) < Number(before) ? "flash-down" : "flash-up")
}

function drawLine() {
  const points = linePoints()
  const known = points.filter((point) => point.value !== null)
  const isDrawn = known.length > 1
  const figure = $("#day")
  figure.classList.toggle("empty", !isDrawn && !day.trouble)
  figure.classList.toggle("trouble", Boolean(day.trouble))
  const base = day.base ?? (view.message ? Number(view.message.last_equity) : null)
  const levels = known.map((point) => point.value)
  const low = Math.min(...levels, base ?? Infinity)
  const high = Math.max(...levels, base ?? -Infinity)
  const from = known[0]?.at ?? 0
  const span = (known.at(-1)?.at ?? 0) - from || 1
  const x = (at) => ((at - from) / span) * 320
  const y = (value) => 92 - ((value - low) / (high - low || 1)) * 86
  Object.assign(day, { drawn: isDrawn ? known : [], x, y })
  $("#day .line").setAttribute("d", isDrawn ? pieces(points).map((piece) => path(piece, x, y)).join("") : "")
  $("#day .area").setAttribute("d", isDrawn && base !== null
    ? pieces(points).map((piece) => `${path(piece, x, y)}L${x(piece.at(-1).at)} ${y(base)}L${x(piece[0].at)} ${y(base)}Z`).join("")
    : "")
  const level = isDrawn && base !== null ? y(base) : -9
  $("#day .base").setAttribute("y1", level)
  $("#day .base").setAttribute("y2", level)
  $("#line").setAttribute("class", isDrawn ? sign(known.at(-1).value - (base ?? known[0].value)) : "")
  drawCaption()
}

// Between two gaps
function pieces(points) {
  const found = [[]]
  for (const point of points) {
    if (point.value === null) found.push([])
    else found.at(-1).push(point)
  }
  return found.filter((piece) => piece.length)
}

function path(piece, x, y) {
  return piece.map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.value).toFixed(1)}`).join("")
}

function drawCaption() {
  const points = day.drawn ?? []
  const pointed = day.pointed === null ? null : nearest(points, day.pointed)
  const cursor = $("#day .cursor")
  cursor.setAttribute("x1", pointed ? day.x(pointed.at) : -9)
  cursor.setAttribute("x2", pointed ? day.x(pointed.at) : -9)
  const isShort = points.length && points.at(-1).at - points[0].at < SHORT_MS
  put($("#day-from"), points.length ? clockTime(points[0].at, isShort) : "")
  put($("#day-to"), points.length ? clockTime(points.at(-1).at, isShort) : "")
  const title = day.points.length ? "Today, without deposits and withdrawals" : "Since you opened this page"
  put($("#day-text"), pointed
    ? `${clockTime(pointed.at)}: ${dollars(pointed.equity)}, today ${pointed.today === null ? "not known" : plus(pointed.today)}`
    : day.trouble || title)
}

function nearest(points, share) {
  if (!points.length) return null
  const at = points[0].at + share * (points.at(-1).at - points[0].at)
  return points.reduce((best, point) => (Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best))
}

$("#line").addEventListener("pointermove", (event) => {
  const box = $("#line").getBoundingClientRect()
  day.pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))
  drawCaption()
})
$("#line").addEventListener("pointerleave", () => {
  day.pointed = null
  drawCaption()
})

function speak(message) {
  if (Date.now() - view.spokenAt < SPOKEN_MS) return
  view.spokenAt = Date.now()
  put($("#spoken"), `Total value ${message.total_value ?? "not known"}, today ${message.today_return ?? "not known"}`)
}

// Text

function put(element, text) {
  if (element.textContent !== text) element.textContent = text
}

function clockTime(when, withSeconds = true) {
  const second = withSeconds ? { second: "2-digit" } : {}
  return new Date(when).toLocaleTimeString([], { hour: "numeric", minute: "2-digit", ...second })
}

// 4000 -> "1 h": the largest whole unit
function age(seconds) {
  const [size, unit] = [[86_400, "d"], [3_600, "h"], [60, "min"]].find(([size]) => seconds >= size) ?? [1, "s"]
  return `${Math.floor(seconds / size)} ${unit}`
}

function plus(amount) {
  return (Number(amount) > 0 ? "+" : "") + dollars(amount)
}

// "up", "down" or "", of a decimal text or a number
function sign(amount) {
  const number = Number(amount)
  return number > 0 ? "up" : number < 0 ? "down" : ""
}

function grouped(text) {
  const [whole, fraction] = text.split(".")
  return whole.replace("-", "−").replace(/\B(?=(\d{3})+$)/g, ",") + (fraction === undefined ? "" : `.${fraction}`)
}

function listed(symbols) {
  const rest = symbols.length - SYMBOLS_LISTED_MAX
  return symbols.slice(0, SYMBOLS_LISTED_MAX).join(", ") + (rest > 0 ? ` and ${rest} more` : "")
}

function dollars(text) {
  if (text === null || text === undefined) return "—"
  const amount = text.replace("-", "")
  const [whole, fraction = ""] = amount.split(".")
  return `${text.startsWith("-") ? "−" : ""}$${grouped(whole)}.${fraction.padEnd(2, "0")}`
}

// The beginning

const chosen = () => decodeURIComponent(location.hash.slice(1))

function choose(account) {
  history.replaceState(null, "", `#${encodeURIComponent(account)}`)
  link.attempt = 0
  $("#summary").hidden = $("#holdings").hidden = false
  connect(account)
}

async function begin() {
  let session = null
  try {
    session = await refreshToken()
  } catch {
    // not the demo: the visitor says which account
  }
  if (session?.accounts.length) return beginDemo(session)
  if (session) {
    demo.isOn = true
    show("connecting")
    return void setTimeout(begin, 1000) // the accounts are still being read
  }
  $("#sign-in").hidden = false
  $("#account-id").value = chosen()
  $("#sign-in").onsubmit = (event) => {
    event.preventDefault()
    link.token = $("#token").value.trim() || null
    notice("")
    choose($("#account-id").value.trim())
  }
}

function beginDemo(session) {
  demo.isOn = true
  const picker = $("#account")
  list(session.accounts, chosen())
  picker.onchange = () => choose(picker.value)
  $("#picker").hidden = false
  choose(picker.value)
}

function list(accounts, current) {
  const picker = $("#account")
  const isLonger = accounts.length > picker.options.length
  if (isLonger) {
    picker.replaceChildren(...accounts.map((id) => new Option(id, id)))
    if (accounts.includes(current)) picker.value = current
    // just after the start accounts are still being read: look again until there are no more
    setTimeout(() => refreshToken().then((session) => list(session.accounts, picker.value), () => {}), LIST_MS)
  }
}

begin()
