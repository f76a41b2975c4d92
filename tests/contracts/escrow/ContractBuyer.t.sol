// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {KeyCaps} from "../../../contracts/types/Keys.sol";
import {KeyGrant, Messages, Open} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";
import {Wallet} from "../support/Wallet.sol";

/// @title Buyers that are contracts and answer by ERC-1271
contract ContractBuyerTest is Fixture {
    /// @dev What the whole call may cost when the wallet does its worst: its allowance, and what an open costs.
    uint256 private constant _GAS_LIMIT = 180_000;

    Wallet private _wallet;

    function setUp() public override {
        super.setUp();
        _wallet = new Wallet(buyer.addr);
        _mint(address(_wallet), 1000);
        _wallet.act(address(token), abi.encodeCall(IERC20.approve, (address(escrow), 1000)));
        _wallet.act(address(escrow), abi.encodeCall(IEscrow.deposit, (1000)));
    }

    function test_WalletAcceptsWhatItsOwnerSigned() public {
        Open memory terms = _ofWallet(1, 100);
        escrow.openOneSession(terms, _signOpen(buyer, terms));
        bytes32 sessionId = escrow.sessionIdOf(terms);
        escrow.topUp(terms, 150, _signTopUp(buyer, sessionId, 150));
        assertEq(_held(sessionId).deposited, 150);
        assertEq(escrow.accountOf(address(_wallet)), 850);
        assertEq(escrow.accountOf(buyer.addr), 0);
    }

    function test_WalletGrantsAKeyBySignature() public {
        KeyGrant memory grant;
        (grant.buyer, grant.key, grant.nonce, grant.validUntil) = (address(_wallet), key.addr, 1, START + 1);
        (grant.perSession, grant.perDay, grant.total, grant.expiresAt) = (50, 50, 50, START + 1 days);
        escrow.setKeyBySig(grant, _sign(buyer, Messages.hash(grant)));
        Open memory terms = _ofWallet(1, 51);
        bytes memory signature = _signOpen(key, terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_AboveSessionCap.selector, 51, 50));
        escrow.openOneSession(terms, signature);
        terms = _ofWallet(1, 50);
        escrow.openOneSession(terms, _signOpen(key, terms));
        assertEq(escrow.keyOf(address(_wallet), key.addr).spent, 50);
    }

    function test_WalletThatSendsNeedsNoSignature() public {
        _wallet.setMood(Wallet.Mood.RefuseAll);
        _wallet.act(address(escrow), abi.encodeCall(IEscrow.openOneSession, (_ofWallet(1, 100), "")));
        _wallet.act(
            address(escrow), abi.encodeCall(IEscrow.setKey, (key.addr, KeyCaps(1, 1, 1, START + 1 days, 0)))
        );
        _wallet.act(address(escrow), abi.encodeCall(IEscrow.withdraw, (900, stranger)));
        assertEq(token.balanceOf(stranger), 900);
    }

    /// @dev Wallets that keep approved digests take no signature at all, others hundreds of bytes.
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_WalletTakesSignaturesOfAnyLength(bytes calldata signature) public {
        _wallet.setMood(Wallet.Mood.AcceptAll);
        escrow.openOneSession(_ofWallet(1, 100), signature);
        assertEq(escrow.accountOf(address(_wallet)), 900);
    }

    function test_WalletRefusesWhatSomebodyElseSigned() public {
        Open memory terms = _ofWallet(1, 100);
        bytes memory signature = _signOpen(nodeKey, terms);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, nodeKey.addr, address(_wallet))
        );
        escrow.openOneSession(terms, signature);
    }

    /// @dev Everything but the magic value in a whole word is a no, and none of it can cost the sender much.
    function test_WalletThatAnswersBadlyIsRefusedWithinBoundedGas() public {
        Wallet.Mood[8] memory moods = [
            Wallet.Mood.RefuseAll,
            Wallet.Mood.Revert,
            Wallet.Mood.RevertWithMagic,
            Wallet.Mood.BurnGas,
            Wallet.Mood.Bomb,
            Wallet.Mood.Short,
            Wallet.Mood.Dirty,
            Wallet.Mood.Nothing
        ];
        Open memory terms = _ofWallet(1, 100);
        bytes memory signature = _signOpen(buyer, terms);
        bytes memory reason =
            abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, address(_wallet));
        for (uint256 i = 0; i < moods.length; ++i) {
            _wallet.setMood(moods[i]);
            vm.expectRevert(reason);
            uint256 before = gasleft();
            escrow.openOneSession(terms, signature);
            assertLt(before - gasleft(), _GAS_LIMIT);
        }
        assertEq(escrow.accountOf(address(_wallet)), 1000);
    }

    function test_WalletThatAcceptsAtLengthIsTakenAtItsFirstWord() public {
        _wallet.setMood(Wallet.Mood.BombThatAccepts);
        uint256 before = gasleft();
        escrow.openOneSession(_ofWallet(1, 100), "");
        assertLt(before - gasleft(), _GAS_LIMIT);
        assertEq(escrow.accountOf(address(_wallet)), 900);
    }

    function test_WalletThatChangesItsAnswerTakesNothingBack() public {
        _wallet.setMood(Wallet.Mood.AcceptAll);
        Open memory terms = _ofWallet(1, 100);
        escrow.openOneSession(terms, "");
        bytes32 sessionId = escrow.sessionIdOf(terms);
        _wallet.setMood(Wallet.Mood.RefuseAll);
        escrow.openOneSession(terms, "");
        _settleOne(sessionId, 1, 100);
        assertEq(_held(sessionId).paid, 100);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, address(0), address(_wallet)));
        escrow.topUp(terms, 200, "");
    }

    function test_WalletThatBurnsGasBlocksNobodyElse() public {
        _wallet.setMood(Wallet.Mood.BurnGas);
        _deposit(100);
        Open memory terms = _terms(100);
        escrow.openOneSession(terms, _signOpen(buyer, terms));
        assertEq(escrow.accountOf(buyer.addr), 0);
    }

    /// @dev A node's consent and a voucher are plain signatures; a contract's word for them counts nothing.
    function test_WalletIsNoKeyAndNoNode() public {
        _wallet.setMood(Wallet.Mood.AcceptAll);
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, address(_wallet), 0);
        Open memory terms = _ofWallet(1, 100);
        terms.key = address(_wallet);
        escrow.openOneSession(terms, "");
        bytes memory consent = _signClose(buyer, escrow.sessionIdOf(terms), 0);
        vm.expectRevert(
            abi.encodeWithSelector(IEscrow.Escrow_WrongSigner.selector, buyer.addr, address(_wallet))
        );
        escrow.close(terms, 0, consent);
        _settleOne(_item(buyer, escrow.sessionIdOf(terms), 1, 100));
        assertEq(escrow.session(escrow.sessionIdOf(terms), address(_wallet)).paid, 0);
    }

    function _ofWallet(uint256 salt, uint128 amount) private view returns (Open memory terms) {
        terms = _terms(amount);
        (terms.buyer, terms.salt) = (address(_wallet), bytes32(salt));
    }
}
