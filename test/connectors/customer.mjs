// A customer of examples/shop.mjs, who knows of no IPsec either: orders something and reads the orders.
const [url, item] = process.argv.slice(2)

const response = await fetch(`${url}/orders`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ item }),
})
if (response.status !== 201) throw new Error(`status ${response.status}`)
console.log(await (await fetch(`${url}/orders`)).text())
