// A shop of Express and PostgreSQL as anybody would write it: nothing in it knows of ike-socket. `postgres.mjs` beside it runs it
// with its database behind IPsec. PORT and HOST say where it listens, PGHOST, PGPORT, PGUSER and so on where the database is.
import express from 'express'
import pg from 'pg'

// Orders last as long as the one connection: nothing stays in the database.
const pool = new pg.Pool({ max: 1, idleTimeoutMillis: 0 })
await pool.query('create temporary table orders (id serial primary key, item text not null)')

const app = express()
app.use(express.json())
app.post('/orders', async (request, response) => {
  const { rows } = await pool.query('insert into orders (item) values ($1) returning *', [
    request.body.item,
  ])
  response.status(201).json(rows[0])
})
app.get('/orders', async (_request, response) => {
  const { rows } = await pool.query('select * from orders order by id')
  response.json(rows)
})

const { PORT = '8080', HOST = '127.0.0.1' } = process.env
const server = app.listen(Number(PORT), HOST, error => {
  if (error) throw error
  console.log(`the shop is open at port ${server.address().port}`)
})
process.once('SIGTERM', () => server.close(() => pool.end()))
