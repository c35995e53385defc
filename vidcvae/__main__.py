from vidcvae.cli.app import main

main()
